"""Texts of the user's: how a document and a question become one message, and how a file is read."""

import os
from pathlib import Path

from .errors import PromptError

BREAK = "\n\n"  # between documents, and between a document and the question


def about(document: str, question: str) -> str:
    """What the user says to have a question answered from a text; later questions about it go without the text."""
    return (document + BREAK if document else "") + f"Question: {question}"


def read_text(path: str | os.PathLike, what: str) -> str:
    """The text of a UTF-8 file.

    Args:
        what: it is to be, for the error.

    Raises:
        PromptError: it cannot be read, or is none.
    """
    try:
        return Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(f"{what}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{what}: {path} is not UTF-8 text (byte {error.start}); convert it, e.g. with iconv"
        ) from None
