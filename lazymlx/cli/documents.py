"""A document's text out of a file: text and Markdown as they are, PDF through pypdf, an optional dependency."""

import logging
import os
import shlex
from pathlib import Path

from ..errors import PromptError
from ..session.transcript import text_of

PDF = b"%PDF-"


def path_of(words: str) -> Path:
    """The file that a user means: a path as it is, or as a shell would want it (quoted, or with backslashes).

    Raises:
        PromptError: no file can have such a name.
    """
    if "\0" in words:
        raise PromptError("file: its name has a zero byte in it, which none can have")
    path = Path(os.path.expanduser(words))  # Path.expanduser() raises for a user who does not exist
    if os.path.exists(path):  # and Path.exists() if a name is too long
        return path
    try:
        parts = shlex.split(words)
    except ValueError:  # a quote that is never closed belongs to the name
        return path
    return Path(os.path.expanduser(parts[0])) if len(parts) == 1 else path


def read_document(path: Path) -> str:
    """The text of a file.

    Raises:
        PromptError: it cannot be read, or has no text.
    """
    try:
        with path.open("rb") as file:
            is_pdf = file.read(len(PDF)) == PDF
    except OSError as error:
        raise PromptError(f"document: {path} cannot be read: {error.strerror}") from None
    return _text_of_pdf(path) if is_pdf else text_of(path)


def _text_of_pdf(path: Path) -> str:
    try:
        from pypdf import PdfReader
    except ImportError:
        raise PromptError(
            f"document: {path} is a PDF, and reading those takes pypdf; install it with: pip install 'lazymlx[pdf]'"
        ) from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it comments on every small flaw
    try:
        text = "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    except Exception as error:  # of a damaged file, pypdf raises whatever it stumbles over
        raise PromptError(f"document: {path} cannot be read as a PDF: {error}") from None
    if not text.strip():
        raise PromptError(f"document: {path} has no text in it; if its pages are pictures, run OCR over it first")
    return text
