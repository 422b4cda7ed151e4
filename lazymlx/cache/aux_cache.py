"""The aux cache: hidden states of tokens that were left behind (LazyLLM sec 3.2).

A token waits at exactly one cut, so it has exactly one row here, whichever cut that is; `depth`, the number of stages
that it has been computed in, tells which. How many wait where is a matter of counting, and known without asking the
device.
"""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Integer

from .rows import RowBuffer, added, written


class Moved(NamedTuple):
    """Tokens on from a cut to the next: the slots that their rows have, and the new rows, not put there yet."""

    slots: Integer[mx.array, " R"]
    rows: Float[mx.array, "1 R D"]

    def instead(self, rows: Float[mx.array, "L D"], slots: Integer[mx.array, " L"]) -> Float[mx.array, "L D"]:
        """The new rows in the place of old ones that were read from these slots."""
        same = slots[:, None] == self.slots
        return mx.where(same.any(axis=1)[:, None], self.rows[0, same.argmax(axis=1)], rows)


class AuxCache:
    """Hidden states of tokens left behind: for each, the input of the first layer that it was not computed in.

    A row returns to its own slot when its token waits at the next cut, so a decode step neither allocates nor moves.

    Args:
        cuts: at which tokens may wait.
        bits, group_size: to keep the rows in, see `RowBuffer`.
    """

    def __init__(self, cuts: int, bits: int | None = None, group_size: int = 64) -> None:
        self.rows = RowBuffer(0, bits, group_size)  # (capacity, D)
        self.used = 0
        self.waiting_at = (0,) * cuts  # tokens at each cut
        self.depth = mx.zeros((0,), mx.int32)  # for each position, the stages in which it was computed
        self.slots = mx.zeros((0,), mx.int32)  # for each position that waits, its row

    def leave(self, x: Float[mx.array, "1 L D"], offset: int, ahead: int = 0) -> None:
        """New tokens at `offset` and behind wait at the first cut, as rows of stage 0; `ahead` more are to come."""
        L = x.shape[1]
        self.rows.write(x.squeeze(0), self.used, self.used + L + ahead)
        self._note(offset, mx.full((L,), 1, mx.int32), mx.arange(self.used, self.used + L, dtype=mx.int32))
        self.used += L
        self.waiting_at = (self.waiting_at[0] + L, *self.waiting_at[1:])

    def pass_by(self, offset: int) -> None:
        """Note a new token at `offset` that runs through all stages and never waits."""
        self._note(offset, mx.array([len(self.waiting_at) + 1], mx.int32), mx.array([0], mx.int32))

    def _note(self, offset: int, depth: mx.array, slots: mx.array) -> None:
        capacity = offset + depth.shape[0] + 1  # one place more than there are positions, which is nobody's
        self.depth = added(self.depth, depth, offset, capacity, 0)
        self.slots = added(self.slots, slots, offset, capacity, 0)

    @property
    def places(self) -> int:
        """Length of the tables of positions: more than there are positions, and the same for many steps."""
        return self.depth.shape[0]

    def come_back(
        self, positions: Integer[mx.array, " L"], cut: int, moved: Moved | None = None
    ) -> tuple[Float[mx.array, "1 L D"], Integer[mx.array, " L"]]:
        """The tokens at these positions, which wait at `cut`, go on. Returns their rows, and the slots they came from.

        Args:
            moved: the tokens that came to this cut, but were not put back yet.
        """
        slots = self.slots[positions]
        self.depth = written(self.depth, mx.broadcast_to(mx.array(cut + 1, mx.int32), positions.shape), positions, 0)
        self.went(positions.shape[0], cut)
        rows = self.rows.at(slots)
        return (rows if moved is None else moved.instead(rows, slots))[None], slots

    def went(self, count: int, cut: int) -> None:
        """Count tokens on from a cut to the next."""
        waiting = [*self.waiting_at, 0]
        waiting[cut - 1] -= count
        waiting[cut] += count
        self.waiting_at = tuple(waiting[:-1])

    def leave_again(self, slots: Integer[mx.array, " L"], x: Float[mx.array, "1 L D"]) -> None:
        """Tokens that came back from these slots wait at the next cut, as rows of the stage between."""
        self.rows.put(slots, x.squeeze(0))

    def compact(self) -> None:
        """Drop all rows but those of the tokens that wait."""
        place, waiting = mx.arange(self.places), sum(self.waiting_at)
        waits = (self.depth > 0) & (self.depth <= len(self.waiting_at))
        positions = mx.sort(mx.where(waits, place, self.places))[:waiting]
        self.rows = self.rows.of(self.slots[positions])
        self.slots = written(self.slots, mx.arange(waiting, dtype=mx.int32), positions, 0)
        self.used = waiting

    def trim(self, offset: int) -> None:
        """Forget all positions from `offset` on (waits for the device)."""
        depth = np.array(self.depth[:offset])
        waiting = np.flatnonzero(depth <= len(self.waiting_at))
        self.lay_out(self.rows.of(self.slots[mx.array(waiting.astype(np.int32))]), depth)

    def lay_out(self, rows: RowBuffer, depth: Integer[np.ndarray, " P"]) -> None:
        """Hold these rows: of the tokens that wait, in the order of their positions.

        Args:
            depth: of every position.
        """
        cuts = len(self.waiting_at)
        waiting = np.flatnonzero(depth <= cuts)
        slots = np.zeros(len(depth), np.int32)
        slots[waiting] = np.arange(len(waiting))
        self.rows, self.used = rows, len(waiting)
        self.depth, self.slots = mx.array(depth.astype(np.int32)), mx.array(slots)
        self.waiting_at = tuple(int((depth == cut).sum()) for cut in range(1, cuts + 1))

    def pad(self, places: int, capacity: int) -> None:
        """Have so many places for positions and slots for rows, as a conversation had that was saved."""
        empty = places - self.places
        self.depth, self.slots = mx.pad(self.depth, (0, empty)), mx.pad(self.slots, (0, empty))
        self.rows = self.rows.padded(capacity - self.rows.capacity)

    def fill(self, arrays: Iterator[mx.array]) -> None:
        """Have the next of these arrays, in the order of `arrays`."""
        self.rows.fill(arrays)
        self.depth, self.slots = next(arrays), next(arrays)

    @property
    def arrays(self) -> list[mx.array]:
        return [*self.rows.parts, self.depth, self.slots]
