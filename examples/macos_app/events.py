"""What the worker tells a window: small values, worded once for every toolkit. Importing this loads no MLX."""

from typing import NamedTuple

from lazymlx import LazyStats, Schedule


class Loaded(NamedTuple):
    """The model is there."""

    name: str


class Busy(NamedTuple):
    """Something has begun that takes a while."""

    doing: str


class Reading(NamedTuple):
    """How much of a document or a question has been read, 0 to 1."""

    fraction: float


class Opened(NamedTuple):
    """A document has been read; it replaces the one before."""

    name: str
    tokens: int
    seconds: float


class Asked(NamedTuple):
    """A question is being answered."""

    question: str


class Piece(NamedTuple):
    """More of the answer."""

    text: str


class Answered(NamedTuple):
    """The answer has ended, and this is what it cost."""

    stats: LazyStats
    revived: int  # by this question and its answer
    tokens_per_s: float
    early: str = ""  # why there is no more of it

    def kept(self) -> list[tuple[str, int, int]]:
        """For each stage: its layers, how many tokens the question let through to them, and of how many."""
        total = self.stats.prompt_end
        if all(count == total for count in self.stats.kept):
            return [("every layer", total, total)]
        layers = [cut.layer for cut in Schedule.of(self.stats.schedule).cuts]
        names = [f"layers 0–{layers[0] - 1}", *(f"from layer {layer} on" for layer in layers)]
        return [(name, count, total) for name, count in zip(names, (total, *self.stats.kept), strict=True)]

    def figures(self) -> list[tuple[str, str]]:
        """Numbers, and what they are."""
        return [
            (f"{self.stats.ttft_s or 0:.2f} s", "to the first token"),
            (f"{self.tokens_per_s:.0f} tok/s", "while answering"),
            (f"{self.revived:,}", "tokens revived"),
            (f"{(self.stats.kv_bytes + self.stats.aux_bytes) / 1e6:.0f} MB", "held in memory"),
        ]


class Stopped(NamedTuple):
    """What was begun has been given up, and everything is as it was before."""


class Failed(NamedTuple):
    """What was asked for cannot be done; one line says why."""

    reason: str


class Idle(NamedTuple):
    """The worker waits, and this is what can be asked of it."""

    can_open: bool
    can_ask: bool


Event = Loaded | Busy | Reading | Opened | Asked | Piece | Answered | Stopped | Failed | Idle
