"""`Stops`: texts that end an answer, found across its pieces."""

from collections.abc import Sequence


class Stops:
    """Passes an answer on, but for its end that may become a stop text."""

    def __init__(self, texts: Sequence[str]):
        self._texts, self._held = texts, ""

    def add(self, text: str, last: bool = False) -> tuple[str, bool]:
        """What can be said now, and whether a stop text was found; of the last piece nothing is held back."""
        self._held += text
        found = [at for at in map(self._held.find, self._texts) if at >= 0]
        if found:
            return self._held[: min(found)], True
        held = 0 if last else max(map(self._unsure, self._texts), default=0)
        said, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return said, False

    def _unsure(self, stop: str) -> int:
        """How many of the last letters may be the beginning of `stop`."""
        return next((n for n in range(len(stop) - 1, 0, -1) if self._held.endswith(stop[:n])), 0)
