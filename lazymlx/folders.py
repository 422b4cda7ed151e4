"""Folders that results go to: tried before the work begins, and files there that are not ours."""

import json
import os
from pathlib import Path

from .errors import UsageError


def check_folder(path: Path, flag: str) -> None:
    """Make a folder if it is not there, and refuse one where nothing can be written.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: it is a file, or cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{flag}: {path} is a file; expected a folder")
    trial = path / f".{os.getpid()}.tmp"
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written to: {error.strerror}") from None


def holds(path: Path, field: str) -> bool:
    """Whether a file is a JSON object with this field, as one that we have written is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and field in content
