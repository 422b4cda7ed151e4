"""Files that a command writes beside its answer, and what may be replaced by them."""

from pathlib import Path

from ..errors import UsageError
from ..files import check_file, holds, mentions

PAGE = 'content="lazymlx explain"'  # what a page says of itself


def check_page(path: Path, flag: str) -> None:
    """Refuse a place for an explanation, see `check_file`; a slip of the finger must not replace a document."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{flag}: {path} is no name for a page; expected one that ends with .html")
    check_file(path, flag, lambda there: mentions(there, PAGE))


def check_statistics(path: Path, flag: str) -> None:
    """Refuse a place for an answer's figures, see `check_file`."""
    check_file(path, flag, lambda there: holds(there, "lazy"))
