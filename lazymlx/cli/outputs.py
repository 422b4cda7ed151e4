"""What a command writes beside its answer, and what may be replaced by it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import check_file, holds, is_stream, mentions, write_json
from .terminal import confirm, write

PAGE = 'content="lazymlx explain"'  # what a page says of itself
STDOUT = Path("-")


def check_page(path: Path, flag: str) -> None:
    """Refuse a place for an explanation, see `check_file`; a slip of the finger must not replace a document."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{flag}: {path} is no name for a page; expected one that ends with .html")
    check_file(path, flag, lambda there: mentions(there, PAGE))


def check_document(path: Path, flag: str, is_document: Callable[[Path], bool], overwrite: bool) -> None:
    """Refuse a place for a conversation, see `check_file`; another one there is replaced only if the user says so.

    Args:
        overwrite: the user has said so.
    """
    check_file(path, flag, is_document)
    if overwrite or is_stream(path) or not path.exists() or not path.stat().st_size:
        return
    if not confirm(f"{path} holds another conversation; replace it?"):
        raise UsageError(f"{flag}: {path} holds another conversation; name another place, or replace it by --overwrite")


def check_statistics(path: Path, flag: str) -> None:
    """Refuse a place for an answer's figures, see `check_file`."""
    if path != STDOUT:
        check_file(path, flag, lambda there: holds(there, "lazy"))


def write_statistics(path: Path, content: Mapping[str, Any], flag: str) -> None:
    """Write an answer's figures to a file, or as one line to stdout."""
    if path == STDOUT:
        write(json.dumps(content, ensure_ascii=False) + "\n")
    else:
        write_json(path, content, flag)
