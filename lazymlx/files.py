"""Files and folders that results go to: tried before the work begins, written whole or not at all when it is done."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError


def check_file(path: Path, flag: str) -> None:
    """Refuse a file that cannot be written, before anything is computed for it.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: its folder is missing or may not be written to, or it is a folder itself.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{flag}: {path} is a folder; expected a file")
        if path.exists():
            path.open("a").close()
        else:
            _try(_beside(path))
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written: {error.strerror}") from None


def check_folder(path: Path, flag: str) -> None:
    """Refuse a folder where nothing can be written, or that cannot be made; it is made when something is.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: it, or what it would lie in, is a file or cannot be written to.
    """
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if _is_there(folder))
        if not there.is_dir():
            raise UsageError(f"{flag}: {there} is no folder")
        _try(_beside(there / "trial"))
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written to: {error.strerror}") from None


def holds(path: Path, field: str) -> bool:
    """Whether a file is a JSON object with this field, as one that we have written is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and field in content


def write_json(path: Path, content: Mapping[str, Any], flag: str) -> None:
    """Write plain values; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", flag)


def write_text(path: Path, text: str, flag: str) -> None:
    """Write to a temporary file and rename it, so that a reader never finds half a file. Its folder is made.

    Raises:
        RunError: it could not be written, because a disk is full, say.
    """
    path = path.resolve()  # a link stays one
    try:
        if path.exists() and not path.is_file():  # /dev/null and its like must not be renamed over
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{flag}: {path} could not be written: {error.strerror}") from error


def _is_there(path: Path) -> bool:
    """Whether the name is taken, by a link that leads nowhere, say. What cannot be a name at all is an `OSError`."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _try(path: Path) -> None:
    path.touch()
    path.unlink()
