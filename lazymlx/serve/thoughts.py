"""`Thoughts`: what a model thinks before it answers, told apart from the answer."""

from .stops import beginning


class Thoughts:
    """Splits a text in two.

    Args:
        start, end: what the model puts around a thought.
        inside: the prompt has begun one already.
    """

    def __init__(self, start: str, end: str, inside: bool):
        self._start, self._end, self._inside = start, end, inside
        self._held = ""

    def add(self, text: str, last: bool = False) -> tuple[str, str]:
        """What can be passed on of thoughts, and of the answer; of the last piece nothing is held back."""
        self._held += text
        parts = {True: "", False: ""}
        while True:
            mark = self._end if self._inside else self._start
            before, found, after = self._held.partition(mark)
            if not found:
                break
            parts[self._inside] += before
            self._held, self._inside = after, not self._inside
        held = 0 if last else beginning(mark, self._held)
        parts[self._inside] += self._held[: len(self._held) - held]
        self._held = self._held[len(self._held) - held :]
        return parts[True], parts[False]
