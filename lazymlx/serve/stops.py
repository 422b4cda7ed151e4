"""`Stops`: texts that end an answer, found across its pieces."""

from collections.abc import Sequence


class Stops:
    """Passes an answer on, but for its end that may become a stop text."""

    def __init__(self, texts: Sequence[str]):
        self._texts, self._held = texts, ""

    def add(self, text: str, last: bool = False) -> tuple[str, str | None]:
        """What can be said now, and the stop text that was found; of the last piece nothing is held back."""
        self._held += text
        found = [(self._held.index(stop), stop) for stop in self._texts if stop in self._held]
        if found:
            at, stop = min(found)
            return self._held[:at], stop
        held = 0 if last else max((beginning(stop, self._held) for stop in self._texts), default=0)
        said, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return said, None


def beginning(mark: str, text: str) -> int:
    """How many of the last letters of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
