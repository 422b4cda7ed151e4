"""The two streams: the answer on stdout, byte for byte, and everything that is said about it on stderr."""

import io
import os
import sys
from typing import TextIO

from ..errors import RunError


def say(text: str) -> None:
    """One line on stderr, whatever line breaks a message has brought along."""
    print(f"lazymlx: {' '.join(text.split())}", file=sys.stderr, flush=True)


def use_utf8() -> None:
    """The answer is UTF-8 in every locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def write(text: str) -> None:
    """A piece of the answer, at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
        RunError: it cannot be written, because a disk is full, say.
    """
    if sys.stdout is not None:  # None if the shell closed it
        sys.stdout.write(text)
        finish()


def finish() -> None:
    """Flush stdout while an error can still be answered: the interpreter's own flush at exit would only complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise RunError(f"stdout: the answer could not be written: {error.strerror}") from error


def silence(*streams: TextIO | None) -> None:
    """Send what these streams still hold, and all that follows, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
