"""The end of a process while other threads compute.

The interpreter ends a thread that comes back to it then, before Python 3.13 by tearing it out of whatever called it;
in the middle of MLX that aborts the process. So what computes says so, piece by piece: at the end the pieces under way
are waited for, and threads that would begin another one stay where they are until the process is gone. A thread that
has ended, and was joined, is not gone yet: on its way out MLX lets go of what it compiled there, and needs the
interpreter once more.
"""

import atexit
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, current_thread, local, main_thread

LEAVING_S = 0.2  # for threads to be gone: nobody tells when they are
LONGEST_S = 60.0  # to wait for a piece: a chunk of a prompt, a token


class Ending:
    """Who computes, and whether the process ends."""

    def __init__(self) -> None:
        self._changed, self._mine = Condition(), local()
        self._computing, self._over, self._asked, self._others = 0, False, False, False

    @contextmanager
    def waits(self) -> Iterator[None]:
        """What is done in here is waited for. Within another such piece, it is a part of that."""
        if getattr(self._mine, "inside", False):
            yield
            return
        with self._changed:
            if not self._asked:
                atexit.register(self.end)
                self._asked = True
            self._changed.wait_for(lambda: not self._over or current_thread() is main_thread())
            self._computing += 1
            self._others |= current_thread() is not main_thread()
        self._mine.inside = True
        try:
            yield
        finally:
            self._mine.inside = False
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Wait for what is under way, and let no other thread begin anything: the process ends."""
        with self._changed:
            self._over = True
            self._changed.wait_for(lambda: not self._computing, LONGEST_S)
        if self._others:
            time.sleep(LEAVING_S)


ENDING = Ending()  # there is one process
