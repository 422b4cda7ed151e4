"""`Use`: one thread at a time uses a session; any thread may end what it does, or close it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from ..errors import StateError


class Use:
    """Who uses a session, and whether it is to stop."""

    def __init__(self) -> None:
        self._busy, self._cancelled, self._closed = Lock(), Event(), False

    @contextmanager
    def alone(self, let_go: Callable[[], None]) -> Iterator[None]:
        """Be the only one that uses the session.

        Args:
            let_go: of all that the session holds; called if it was closed meanwhile.

        Raises:
            StateError: it is in use, or closed.
        """
        if not self._busy.acquire(blocking=False):
            raise StateError(
                "session: it is in use, by another thread or by an answer that has not been heard to its end; "
                "cancel it, or close the answer's generator, first"
            )
        try:
            if self._closed:
                raise StateError("session: it is closed; open another one")
            self._cancelled.clear()
            yield
        finally:
            self._busy.release()
            if self._closed:  # since: whoever closed it could not let go
                self.close(let_go)

    @property
    def stopping(self) -> bool:
        """Whether what is running should end."""
        return self._cancelled.is_set() or self._closed

    def cancel(self) -> None:
        """Have what is running end. May be called from any thread."""
        self._cancelled.set()

    def close(self, let_go: Callable[[], None]) -> None:
        """End for good. May be called from any thread.

        Args:
            let_go: is called once nobody uses the session.
        """
        self._closed = True
        if self._busy.acquire(blocking=False):
            let_go()
            self._busy.release()
