"""How long a long job will take yet, by its pace: for where there is no bar to show it."""

import time
from collections.abc import Callable

EVERY = 30.0  # seconds between two lines
AT_ONCE = 1.0  # second, within which there comes what an earlier run has done


class Pace:
    """Says now and then how much is done, and the time that the rest will take at the pace since the last line.

    Args:
        say: is given a line.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.say, self.clock = say, clock
        self.restart()

    def restart(self) -> None:
        """Another job begins."""
        self._at, self._done = self.clock(), 0

    def __call__(self, done: int, total: int) -> None:
        """So much is done."""
        took = self.clock() - self._at
        if took < AT_ONCE:
            self._done = done
        if took < EVERY or done == total:
            return
        left = took * (total - done) / max(done - self._done, 1)
        self.say(f"{done} of {total} done, about {_spoken(left)} left")
        self._at, self._done = self.clock(), done


def _spoken(seconds: float) -> str:
    """A time to wait, in the unit that a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
