"""Ctrl-C while an answer is written: heeded between two tokens, where text, statistics and cache agree."""

import signal
import threading
from types import FrameType


class CtrlC:
    """Inside of the context the first Ctrl-C, once `patient`, is a wish: it sets `wished`. A second one interrupts.

    Where it would not be Python's to answer (an embedding program's own handler, a signal that the shell ignores,
    another thread than the main one) nothing changes.
    """

    def __init__(self) -> None:
        self.patient = False
        self.wished = False
        self._mine = False

    def __enter__(self) -> "CtrlC":
        standard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._mine = standard and threading.current_thread() is threading.main_thread()
        if self._mine:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wished or not self.patient:
            raise KeyboardInterrupt
        self.wished = True
