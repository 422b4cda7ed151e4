"""Keys and values of tokens computed in a stage: `KeysValues`, one a layer, and `StageCache`, which numbers the slots.

All layers of a stage hold the same tokens, so there is one table of positions a stage, and a slot means the same
token in each of its layers. Slots are in the order of arrival; attention does not mind, since keys were rotated by
their true positions and masks compare positions.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Integer

from .masks import Mask, causal
from .rows import MaybePacked, RowBuffer, added, grown, written

KeysAndValues = tuple[MaybePacked, MaybePacked]
"""Of some tokens in one layer, as they are stored: `(1, H_kv, S, D_h)`."""

NOWHERE = 2**30  # position of an empty slot: later than any query, so that every mask hides it


@dataclass(frozen=True)
class Span:
    """Where the rows of a call go in a stage: from slot `start` on, or to these slots; they then attend to the
    slots `[0, stop)`."""

    start: int | mx.array = 0
    stop: int = 0
    capacity: int = 0  # slots that there are to be at least
    context: int = 0  # positions that there may be


T = TypeVar("T")


def handles_of(owner: T) -> T:
    """A copy with handles of its own to the same arrays: assigning to a part of an array changes its handle."""
    twin = copy.copy(owner)
    for name, value in vars(owner).items():
        if isinstance(value, mx.array):
            setattr(twin, name, copy.copy(value))
        elif isinstance(value, RowBuffer):
            setattr(twin, name, value.fork())
    return twin


class KeysValues:
    """Keys and values of one layer, `(1, H_kv, capacity, D_h)`, in order of arrival."""

    def __init__(self) -> None:
        self.keys, self.values = RowBuffer(2), RowBuffer(2)

    def append(
        self, keys: Float[mx.array, "B H_kv L D_h"], values: Float[mx.array, "B H_kv L D_h"], span: Span
    ) -> None:
        """Write rows."""
        self.keys.write(keys, span.start, span.capacity)
        self.values.write(values, span.start, span.capacity)

    def read(self, first: int, stop: int) -> KeysAndValues:
        """Keys and values of the slots `[first, stop)`."""
        return self.keys.read(first, stop), self.values.read(first, stop)

    def keep(self, slots: mx.array | slice) -> None:
        """Drop all slots but these."""
        self.keys, self.values = self.keys.of(slots), self.values.of(slots)

    def grow(self, capacity: int) -> None:
        """Have `capacity` slots at least."""
        self.keys.grow(capacity)
        self.values.grow(capacity)

    def fill(self, arrays: Iterator[mx.array]) -> None:
        """Have the next of these arrays, in the order of `arrays`."""
        self.keys.fill(arrays)
        self.values.fill(arrays)

    def pack(self, bits: int, group_size: int) -> None:
        """Keep keys and values in few bits from now on."""
        self.keys.pack(bits, group_size)
        self.values.pack(bits, group_size)

    def like(self) -> "KeysValues":
        """Empty, with rows in as many bits."""
        twin = KeysValues()
        twin.keys, twin.values = self.keys.like(), self.values.like()
        return twin

    @property
    def arrays(self) -> list[mx.array]:
        return [*self.keys.parts, *self.values.parts]


class StageCache:
    """Keys and values of the layers between two cuts, and the position held by each of their slots."""

    def __init__(self, layers: int, contiguous: bool = False):
        self.layers = [KeysValues() for _ in range(layers)]
        self.contiguous = contiguous  # every position is here, in the slot of its number
        self.positions = mx.zeros((0,), mx.int32)
        self.filled = 0  # slots in use
        self.gaps = False  # some of these may be empty

    def append(self, positions: Integer[mx.array, " L"], context: int, *, ahead: int = 0) -> Span:
        """Number the slots of the next rows, and note their positions; `ahead` more are to come soon."""
        start, self.filled = self.filled, self.filled + positions.shape[0]
        self.positions = added(self.positions, positions, start, self.filled + ahead, 0, NOWHERE)
        return Span(start, self.filled, self.filled + ahead, context)

    def put(self, positions: Integer[mx.array, " L"], slots: Integer[mx.array, " L"], context: int) -> Span:
        """Have rows in these slots: numbers on the device, so that one trace serves all steps."""
        self.positions = written(self.positions, positions, slots, 0)
        return Span(slots, self.filled, self.filled, context)

    @property
    def capacity(self) -> int:
        return self.positions.shape[0]

    def grow(self, capacity: int) -> None:
        """Have `capacity` slots at least."""
        self.positions = grown(self.positions, capacity, self.positions, 0, NOWHERE)
        for layer in self.layers:
            layer.grow(capacity)

    def fill(self, arrays: Iterator[mx.array]) -> None:
        """Have the next of these arrays, in the order of `arrays`."""
        for layer in self.layers:
            layer.fill(arrays)
        self.positions = next(arrays)

    def open(self) -> None:
        """Count all slots, empty ones too, as in use: shapes are then the same for many steps."""
        self.filled, self.gaps = self.capacity, True

    def visible(
        self,
        positions: Integer[mx.array, " L"],
        selected: Bool[mx.array, " P"] | None,
        window: int | None = None,
        first: int = 0,
    ) -> Bool[mx.array, "L S"]:
        """Which slots, from `first` on, rows at these positions may see: nothing later than themselves, nothing outside
        of the window of their layer, and only what was selected."""
        table = self.positions[first : self.filled]
        mask = causal(positions, table, window)
        if selected is not None:
            mask = mask & selected[mx.minimum(table, selected.shape[0] - 1)][None]
        return mask

    def through(
        self, window: int, positions: Integer[mx.array, " L"], selected: Bool[mx.array, " P"] | None
    ) -> tuple[int, Mask]:
        """The same for the newest rows in a layer with a window: the slot from which on to look, and the mask."""
        rows = positions.shape[0]
        first = max(self.filled - rows - window + 1, 0) if self.contiguous else 0
        if rows == 1 and selected is None and self.contiguous:
            return first, None  # neighbours without a gap
        return first, self.visible(positions, selected, window, first)

    def by_position(self, importance: Float[mx.array, " S"], places: int) -> Float[mx.array, " P"]:
        """Bring values of the slots into the order of the positions; 0 where nothing was computed."""
        if self.contiguous:
            held = importance[:places]
            return mx.pad(held, (0, places - len(held))) if len(held) < places else held
        scattered = mx.zeros((places,), importance.dtype)
        scattered[mx.minimum(self.positions[: self.filled], places - 1)] = importance
        return scattered

    def trim(self, offset: int) -> None:
        """Forget all positions from `offset` on (waits for the device)."""
        held = np.array(self.positions[: self.filled])
        slots = np.flatnonzero(held < offset)
        if len(slots) == self.filled:
            return
        if len(slots) > self.capacity // 2 and slots[-1] == len(slots) - 1:  # little goes, from the end: nothing moves
            self.filled = len(slots)
            self.positions[self.filled :] = NOWHERE
            return
        index = mx.array(slots)
        self.positions = mx.array(held[slots])
        for layer in self.layers:
            layer.keep(index)
        self.filled = len(slots)

    def fork(self) -> "StageCache":
        twin = handles_of(self)
        twin.layers = [handles_of(layer) for layer in self.layers]
        return twin

    @property
    def arrays(self) -> list[mx.array]:
        return [a for layer in self.layers for a in layer.arrays] + [self.positions]
