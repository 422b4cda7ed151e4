"""Files that a command leaves: checked before the work begins, written whole or not at all when it is done."""

import json
import os
from pathlib import Path
from typing import Any

from ..errors import RunError, UsageError


def check_writable(path: Path, flag: str) -> None:
    """Refuse a place where nothing can be written, before anything is computed for it.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: the folder is missing or may not be written to, or the path is a folder itself.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{flag}: {path} is a folder; expected a file")
        if path.exists():
            path.open("a").close()
        else:
            temporary = _beside(path)
            temporary.touch()
            temporary.unlink()
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written: {error.strerror}") from None


def write_json(path: Path, content: dict[str, Any], flag: str) -> None:
    """Write plain values; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", flag)


def write_text(path: Path, text: str, flag: str) -> None:
    """Write to a temporary file and rename it, so that a reader never finds half a file.

    Raises:
        RunError: it could not be written, because a disk is full, say.
    """
    path = path.resolve()  # a link stays one
    try:
        if path.exists() and not path.is_file():  # /dev/null and its like must not be renamed over
            path.write_text(text, encoding="utf-8")
            return
        temporary = _beside(path)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{flag}: {path} could not be written: {error.strerror}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
