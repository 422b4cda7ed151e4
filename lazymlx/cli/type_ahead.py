"""What is typed while an answer is written: it does not show in the answer, and the next prompt has it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import termios
except ImportError:  # no terminal of this kind
    termios = None

LOCAL_MODES = 3  # where termios keeps them


@contextmanager
def kept_for_the_prompt() -> Iterator[None]:
    """Let the terminal not echo. Keys are neither read nor lost, not even by Ctrl-C, which stops the answer alone."""
    if termios is None or sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    silent = [*before]
    silent[LOCAL_MODES] = silent[LOCAL_MODES] & ~termios.ECHO | termios.NOFLSH
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
