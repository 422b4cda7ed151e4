"""Where a prompt's reading is likely to be between two reports, which may be many seconds apart."""

import time
from collections.abc import Callable

from ..progress import Progress


class Guess:
    """Goes on at the rate so far, and never beyond where the next report is due.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._newest: Progress | None = None
        self._at = 0.0
        self._between = 0  # tokens between two reports, at most

    def report(self, progress: Progress) -> None:
        if self._newest is not None:
            self._between = max(self._between, progress.processed - self._newest.processed)
        self._newest, self._at = progress, self._clock()

    def now(self) -> int:
        """Tokens that are likely to be done."""
        newest = self._newest
        if newest is None:
            return 0
        if not newest.time_ms:
            return newest.processed
        rate = (newest.processed - newest.cache) / newest.time_ms * 1000
        ahead = min(int(rate * (self._clock() - self._at)), self._between, newest.total - 1 - newest.processed)
        return newest.processed + max(ahead, 0)
