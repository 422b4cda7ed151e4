"""The aux cache: hidden states of tokens that were left behind (LazyLLM sec 3.2).

A token waits at exactly one cut, so it has exactly one row here, whichever cut that is; `depth`, the number of stages
that it has been computed in, tells which.
"""

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int64, Integer

from .pools import NOWHERE, grown, written
from .selection import NO_CANDIDATE


class Revived(NamedTuple):
    """Rows taken out of the aux cache within a budget."""

    x: mx.array  # (1, R, D)
    positions: mx.array  # (R,), `NOWHERE` for rows that do not count
    slots: mx.array  # (R,), where they came from
    valid: mx.array  # how many count; they come first


class AuxCache:
    """Hidden states of tokens left behind: for each, the input of the first layer that it was not computed in.

    Tokens are taken out exactly (`take`, waits for the device once) or within a budget (`take_best`, never waits). A
    row returns to its own slot when its token waits at the next cut, so a decode step neither allocates nor moves.
    """

    def __init__(self) -> None:
        self.rows = mx.zeros((0, 0))  # (capacity, D)
        self.used = 0
        self.depth = mx.zeros((0,), mx.int32)  # for each position, the stages in which it was computed
        self.slots = mx.zeros((0,), mx.int32)  # for each position that waits, its row

    def append(self, x: Float[mx.array, "1 L D"], offset: int, ahead: int = 0) -> None:
        """Keep the outputs of stage 0 for new tokens at `offset` and behind; `ahead` more are to come."""
        L, rows = x.shape[1], x[0]
        self.rows = written(grown(self.rows, self.used + L + ahead + 1, rows, 0), rows, self.used, 0)
        self._note(offset, mx.full((L,), 1, mx.int32), mx.arange(self.used, self.used + L, dtype=mx.int32))
        self.used += L

    def pass_by(self, offset: int, depth: int) -> None:
        """Note a new token at `offset` that runs through all `depth` stages and never waits."""
        self._note(offset, mx.array([depth], mx.int32), mx.array([0], mx.int32))

    def _note(self, offset: int, depth: mx.array, slots: mx.array) -> None:
        # one place more than there are positions: writes that do not count go there
        capacity = offset + depth.shape[0] + 1
        self.depth = written(grown(self.depth, capacity, depth, 0), depth, offset, 0)
        self.slots = written(grown(self.slots, capacity, slots, 0), slots, offset, 0)

    def take(self, missing: np.ndarray, cut: int) -> tuple[Float[mx.array, "1 L D"], Integer[mx.array, " L"]]:
        """Take the tokens at these positions, which wait at `cut`. Returns their rows, and the slots they came from."""
        index = mx.array(missing.astype(np.int32))
        slots = self.slots[index]
        self.depth[index] = cut + 1
        return self.rows[slots][None], slots

    def take_best(self, keys: Int64[mx.array, " N"], cut: int, budget: int) -> Revived:
        """Take at most `budget` of the tokens that wait at `cut`, those with the highest keys; the best come first."""
        N = keys.shape[0]
        waiting = mx.where(self.depth[:N] == cut, keys, mx.array(NO_CANDIDATE, mx.int64))
        order = mx.argsort(waiting)[::-1][:budget].astype(mx.int32)
        counts = waiting[order] != NO_CANDIDATE
        slots = mx.where(counts, self.slots[order], self.used)  # the row behind the last is nobody's
        self.depth[mx.where(counts, order, self.depth.shape[0] - 1)] = cut + 1
        positions = mx.where(counts, order, NOWHERE)
        return Revived(self.rows[slots][None], positions, slots, counts.astype(mx.int32).sum())

    def put_back(self, slots: Integer[mx.array, " L"], x: Float[mx.array, "1 L D"]) -> None:
        """Keep the outputs of a stage for tokens that were taken from these slots; they now wait at the next cut."""
        self.rows[slots] = x[0]

    def compact(self, offset: int, stages: int) -> int:
        """Drop the rows of tokens computed in every stage (waits for the device). Returns how many still wait."""
        waiting = np.flatnonzero(np.array(self.depth[:offset]) < stages)
        self.used = len(waiting)
        index = mx.array(waiting.astype(np.int32))
        self.rows = mx.concatenate([self.rows[self.slots[index]], mx.zeros((1, self.rows.shape[1]), self.rows.dtype)])
        self.slots[index] = mx.arange(self.used, dtype=mx.int32)
        return self.used

    @property
    def arrays(self) -> list[mx.array]:
        return [self.rows, self.depth, self.slots]
