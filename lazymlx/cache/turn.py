"""`Turn`: what is known of the newest prompt and its answer, in one frozen object.

Undo keeps it, saving writes it, trimming replaces it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

Ranges = Sequence[tuple[int, int]]  # of positions: the first one, and the first one behind


@dataclass(frozen=True)
class Turn:
    """Positions and counts.

    Attributes:
        start: where the newest prompt begins.
        queries_start: its first token whose queries are known; a prompt that was trimmed has lost earlier ones.
        end: where the newest complete prompt ends.
        tail: how many of a prompt's last tokens are the chat template's.
        complete: the tokens that are expected end the prompt.
        reading: tokens of a prompt came, but not its last one.
        generated: ranges of positions of all answers so far.
        kept: for each cut, how many tokens the newest prompt's selection let through.
        revived: tokens that were left behind by a prompt and computed behind a cut later, in the whole conversation.
        revived_layers: in how many layers each of them was, summed up.
    """

    start: int = 0
    queries_start: int = 0
    end: int = 0
    tail: int = 0
    complete: bool = True
    reading: bool = False
    generated: tuple[tuple[int, int], ...] = ()
    kept: tuple[int, ...] = ()
    revived: int = 0
    revived_layers: int = 0

    def expecting(self, complete: bool, tail: int) -> "Turn":
        """A prompt was announced."""
        return replace(self, complete=complete, tail=tail)

    def with_prompt(self, start: int, stop: int, final: bool) -> "Turn":
        """Tokens of a prompt came, and with the `final` ones its end."""
        begun = self if self.reading else replace(self, start=start, queries_start=start)
        return replace(begun, reading=not final, end=stop if final else begun.end)

    def with_generated(self, position: int) -> "Turn":
        """The token at this position is an answer's."""
        *earlier, last = self.generated or ((position, position),)
        if last[1] == position:
            return replace(self, generated=(*earlier, (last[0], position + 1)))
        return replace(self, generated=(*self.generated, (position, position + 1)))

    def with_kept(self, kept: Sequence[int]) -> "Turn":
        return replace(self, kept=tuple(kept))

    def with_revived(self, count: int, layers: int) -> "Turn":
        """So many tokens more came back, and were computed in so many layers together."""
        return replace(self, revived=self.revived + count, revived_layers=self.revived_layers + layers)

    def trimmed(self, offset: int) -> "Turn":
        """All positions from `offset` on are forgotten."""
        return replace(
            self,
            start=min(self.start, offset),
            queries_start=offset,
            end=min(self.end, offset),
            reading=self.reading and offset > self.start,
            generated=tuple((start, min(stop, offset)) for start, stop in self.generated if start < offset),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Turn":
        generated = tuple((start, stop) for start, stop in values["generated"])
        return cls(**{**values, "generated": generated, "kept": tuple(values["kept"])})
