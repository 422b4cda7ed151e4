"""The aux cache: hidden states of tokens that were left behind (LazyLLM sec 3.2).

A token waits at exactly one cut, so it has exactly one row here, whichever cut that is; `depth`, the number of stages
that it has been computed in, tells which.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from .compiling import compiled
from .pools import NOWHERE
from .selection import no_candidate, positions_of
from .stores import Store, added

LAST = -1  # slot of a place that is no token's yet: that of the last row, which is nobody's


class Revived(NamedTuple):
    """Rows taken out of the aux cache within a budget."""

    x: mx.array  # (1, R, D)
    positions: mx.array  # (R,), `NOWHERE` for rows that do not count
    slots: mx.array  # (R,), where they came from
    count: mx.array  # how many rows count; they come first


class AuxCache:
    """Hidden states of tokens left behind: for each, the input of the first layer that it was not computed in.

    Tokens are taken out exactly (`take`, waits for the device once) or within a budget (`take_best`, never waits). A
    row returns to its own slot when its token waits at the next cut, so a decode step neither allocates nor moves.

    Args:
        bits, group_size: to keep the rows in, see `Store`.
    """

    def __init__(self, bits: int | None = None, group_size: int = 64) -> None:
        self.rows = Store(0, bits, group_size)  # (capacity, D)
        self.used = 0
        self.depth = mx.zeros((0,), mx.int32)  # for each position, the stages in which it was computed
        self.slots = mx.zeros((0,), mx.int32)  # for each position that waits, its row

    def append(self, x: Float[mx.array, "1 L D"], offset: int, ahead: int = 0) -> None:
        """Keep the outputs of stage 0 for new tokens at `offset` and behind; `ahead` more are to come."""
        L = x.shape[1]
        self.rows.write(x.squeeze(0), self.used, self.used + L + ahead + 1)
        self._note(offset, mx.full((L,), 1, mx.int32), mx.arange(self.used, self.used + L, dtype=mx.int32))
        self.used += L

    def pass_by(self, offset: int, depth: int) -> None:
        """Note a new token at `offset` that runs through all `depth` stages and never waits."""
        self._note(offset, mx.array([depth], mx.int32), mx.array([0], mx.int32))

    def _note(self, offset: int, depth: mx.array, slots: mx.array) -> None:
        capacity = offset + depth.shape[0] + 1  # one place more than there are positions, for writes that do not count
        self.depth = added(self.depth, depth, offset, capacity, 0)
        self.slots = added(self.slots, slots, offset, capacity, 0, LAST)

    @property
    def places(self) -> int:
        """Length of the tables of positions: more than there are positions, and the same for many steps."""
        return self.depth.shape[0]

    def take(
        self, positions: Integer[mx.array, " L"], cut: int
    ) -> tuple[Float[mx.array, "1 L D"], Integer[mx.array, " L"]]:
        """Take the tokens at these positions, which wait at `cut`. Returns their rows, and the slots they came from."""
        slots = self.slots[positions]
        self.depth[positions] = cut + 1
        return self.rows.at(slots)[None], slots

    def take_best(self, keys: Int64[mx.array, " R"], cut: int) -> Revived:
        """Take the tokens with these sort keys, which wait at `cut`; those that count come first."""
        counts, places = keys != no_candidate(), compiled(positions_of)(keys, mx.array(self.places))
        slots = self.slots[places]  # keys that do not count point to the last place, which is nobody's, as its row is
        self.depth = self.depth.at[places].add(counts)  # from `cut` to the next
        return Revived(self.rows.at(slots)[None], mx.where(counts, places, NOWHERE), slots, counts.sum())

    def put_back(self, slots: Integer[mx.array, " L"], x: Float[mx.array, "1 L D"]) -> None:
        """Keep the outputs of a stage for tokens that were taken from these slots; they now wait at the next cut."""
        self.rows.put(slots, x.squeeze(0))

    def waits(self, stages: int) -> Bool[mx.array, " P"]:
        """Which tokens were not computed in every one of `stages`."""
        return (self.depth > 0) & (self.depth < stages)

    def compact(self, waiting: int, stages: int) -> None:
        """Drop all rows but those of the tokens that wait, whose number is known, and one that is nobody's."""
        place = mx.arange(self.places)
        positions = mx.sort(mx.where(self.waits(stages), place, self.places))[:waiting]
        self.rows = self.rows.of(self.slots[positions]).padded(1)
        self.slots[positions] = mx.arange(waiting, dtype=mx.int32)
        self.used = waiting

    def trim(self, offset: int, stages: int) -> int:
        """Forget all positions from `offset` on (waits for the device). Returns how many tokens still wait."""
        self.depth = mx.where(mx.arange(self.places) < offset, self.depth, 0)
        waiting = int(np.array(self.waits(stages).sum()))
        self.compact(waiting, stages)
        return waiting

    def fill(self, arrays: Iterator[mx.array]) -> None:
        """Have the next of these arrays, in the order of `arrays`."""
        self.rows.fill(arrays)
        self.depth, self.slots = next(arrays), next(arrays)

    @property
    def arrays(self) -> list[mx.array]:
        return [*self.rows.parts, self.depth, self.slots]
