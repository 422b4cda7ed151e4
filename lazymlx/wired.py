"""Wired memory: what Metal may keep in place for a model, which it else brings in again at every answer.

The limit is the process's own, and a session wants it for as long as it lives. So it is counted who does: the first
one raises it, the last one gives it back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock

import mlx.core as mx
from mlx_lm.generate import generation_stream


class WiredLimit:
    """How many want memory to be wired.

    Args:
        recommended: the bytes to raise the limit to; None where nothing is wired.
        set_limit: sets the limit of the process, and returns the one before.
    """

    def __init__(self, recommended: Callable[[], int | None], set_limit: Callable[[int], int]):
        self._recommended, self._set_limit = recommended, set_limit
        self._lock = RLock()  # a session that is collected gives back, maybe in the middle of `hold`
        self._holders, self._before = 0, 0

    def hold(self) -> Callable[[], None]:
        """Raise the limit. Returns what gives it back; called again, that does nothing."""
        bytes_ = self._recommended()
        if bytes_ is None:
            return lambda: None
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._before = self._set_limit(bytes_)
        holds = [True]

        def give_back() -> None:
            with self._lock:
                if not holds:
                    return
                holds.clear()
                self._holders -= 1
                if not self._holders:
                    mx.synchronize(generation_stream)  # a step may be under way, which the limit must not change under
                    self._set_limit(self._before)

        return give_back

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it in here."""
        give_back = self.hold()
        try:
            yield
        finally:
            give_back()


def recommended() -> int | None:
    """What Metal recommends at most."""
    if mx.default_device() != mx.Device(mx.gpu) or not mx.metal.is_available():
        return None
    return int(mx.device_info()["max_recommended_working_set_size"])


WIRED = WiredLimit(recommended, mx.set_wired_limit)
