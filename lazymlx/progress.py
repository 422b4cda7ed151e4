"""How far a prompt has been read: one protocol for the command line, sessions and apps.

A report has the fields that llama.cpp made standard. They count tokens; since a lazy prompt's tokens do not all go
through all layers, the work of every stage is planned beforehand and the tokens are those of an equal share of it.
Reports never go back, and the last one says `processed == total`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One report.

    Attributes:
        total: tokens of the conversation once this prompt is read.
        cache: those of them that were there before, and cost nothing now.
        processed: tokens done so far, the cached ones included.
        time_ms: since the prompt arrived.
    """

    total: int
    cache: int
    processed: int
    time_ms: float

    @property
    def fraction(self) -> float:
        """Share of this prompt's own work, 0 to 1."""
        return (self.processed - self.cache) / (self.total - self.cache)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return asdict(self)


OnProgress = Callable[[Progress], bool | None]
"""Called with every report; returning False (not None) cancels the run."""


class Meter:
    """Turns rows computed, stage by stage, into reports."""

    def __init__(
        self, on_progress: OnProgress | None, cached: int, tokens: int, work: Sequence[int], *, patient: bool = False
    ):
        """`tokens` new ones come to `cached` others; `work` is what each stage is expected to cost, in any unit; one
        that is `patient` cancels where it is asked to, see `heed`, and not in the midst of a chunk."""
        self.on_progress, self.patient, self.cancelled = on_progress, patient, False
        self.cached, self.tokens, self.work = cached, tokens, work
        self.processed = 0
        self.started = time.perf_counter()

    def report(self, stage: int, done: int, rows: int) -> None:
        """`done` of `rows` rows have been computed in `stage`, and all of those before it."""
        work = sum(self.work[:stage]) + self.work[stage] * done / max(rows, 1)
        self._report(min(int(self.tokens * work / sum(self.work)), self.tokens - 1))

    def finish(self) -> None:
        """The prompt has been read."""
        self._report(self.tokens)
        self.heed()

    def heed(self) -> None:
        """Stop here if that was wished.

        Raises:
            Cancelled: it was.
        """
        if self.cancelled:
            raise Cancelled(f"cancelled after {self.processed} of {self.tokens} tokens")

    def _report(self, processed: int) -> None:
        if self.on_progress is None or self.cancelled:
            return
        self.processed = max(self.processed, processed)
        total, elapsed = self.cached + self.tokens, (time.perf_counter() - self.started) * 1000
        self.cancelled = self.on_progress(Progress(total, self.cached, self.cached + self.processed, elapsed)) is False
        if not self.patient:
            self.heed()
