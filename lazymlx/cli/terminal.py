"""The two streams: the answer on stdout, byte for byte, and everything that is said about it on stderr."""

import io
import logging
import os
import shutil
import sys
import textwrap
from typing import TextIO

from ..errors import RunError

EXIT_INTERRUPTED = 130  # exit code after Ctrl-C, as shells count it: 128 + SIGINT


def say(text: str, stream: TextIO | None = None) -> None:
    """One line on stderr, whatever line breaks a message has brought along; a terminal's edge breaks it at words."""
    line, stream = f"lazymlx: {' '.join(text.split())}", stream or sys.stderr
    if stream is not None and stream.isatty():
        line = textwrap.fill(line, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(line, file=stream, flush=True)


class Said(logging.Handler):
    """Says what the library has logged."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


LOGGED = Said()


def confirm(question: str) -> bool:
    """Whether the user says yes; where nobody sits at a terminal, nobody does."""
    if any(stream is None or not stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    print(f"lazymlx: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr, flush=True)
        return False


def prepare() -> None:
    """Make the standard streams what the rest relies on: UTF-8 in every locale, and never absent; and let the library's
    log be said.

    A stream that the shell closed would leave its number to the next file that is opened, a model's weights, say; and
    what is printed to no stderr goes to stdout.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    log = logging.getLogger("lazymlx")
    log.addHandler(LOGGED)  # once, however often it is added
    log.setLevel(logging.INFO)


def write(text: str) -> None:
    """A piece of the answer, at once.

    Raises:
        BrokenPipeError: nobody reads it any more.
        RunError: it cannot be written, because a disk is full, say.
    """
    if sys.stdout is None:  # the shell closed it
        return
    try:
        sys.stdout.write(text)
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


def deafen() -> None:
    """Have nothing come from stdin any more."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
