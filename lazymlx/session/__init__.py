"""One document, many questions. Outside, use `Session`."""

from .session import Session

__all__ = ["Session"]
