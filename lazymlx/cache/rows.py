"""`RowBuffer`: rows in a buffer that grows, as they are or packed in few bits.

A packed row is three: `mx.quantize`'s codes, scales and biases. They share the axis of the slots, so whatever is done
to slots is done to each part alike, and only what goes in and comes out is packed and unpacked.
"""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import mlx.core as mx

from ..config import GROUP_SIZES
from ..errors import ConfigError

STEP = 256  # slots by which buffers grow
PARTS = ("", ".scales", ".biases")  # endings of the parts' names


class Quantized(NamedTuple):
    """Keys or values in few bits, as `mx.quantize` packs them: `(B, H_kv, S, ...)`."""

    packed: mx.array
    scales: mx.array
    biases: mx.array
    bits: int
    group_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Only the last axis, which is packed, differs from the array's."""
        return self.packed.shape

    def unpacked(self) -> mx.array:
        return mx.dequantize(self.packed, self.scales, self.biases, group_size=self.group_size, bits=self.bits)

    def for_each(self) -> "Quantized":
        """The same for each of several heads that share them: `(B, H_kv, 1, S, ...)`."""
        packed, scales, biases = (part[:, :, None] for part in (self.packed, self.scales, self.biases))
        return Quantized(packed, scales, biases, self.bits, self.group_size)

    def product(self, rows: mx.array, *, transpose: bool) -> mx.array:
        """`rows` times what is packed, without unpacking it."""
        return mx.quantized_matmul(
            rows,
            self.packed,
            self.scales,
            self.biases,
            transpose=transpose,
            group_size=self.group_size,
            bits=self.bits,
        )


MaybePacked = mx.array | Quantized


def unpacked(stored: MaybePacked) -> mx.array:
    return stored.unpacked() if isinstance(stored, Quantized) else stored


def grown(buffer: mx.array, capacity: int, like: mx.array, axis: int, fill: int = 0) -> mx.array:
    """`buffer` with at least `capacity` places along `axis` for rows such as `like`, made in steps of `STEP`."""
    have = buffer.shape[axis]
    if have >= capacity:
        return buffer
    shape = list(like.shape)
    shape[axis] = -(-capacity // STEP) * STEP - have
    extra = mx.full(shape, fill, dtype=like.dtype)
    return mx.concatenate([buffer, extra], axis=axis) if have else extra


def written(buffer: mx.array, rows: mx.array, start: int | mx.array, axis: int) -> mx.array:
    """`buffer` with `rows` from `start` on, or at these places, which may be known to the device alone.

    The handle that is given is changed.
    """
    if isinstance(start, mx.array):
        index = start.reshape([-1 if each == axis else 1 for each in range(buffer.ndim)])
        return mx.put_along_axis(buffer, mx.broadcast_to(index, rows.shape), rows, axis)
    buffer[(*[slice(None)] * axis, slice(start, start + rows.shape[axis]))] = rows
    return buffer


def added(buffer: mx.array, rows: mx.array, start: int | mx.array, capacity: int, axis: int, fill: int = 0) -> mx.array:
    """`buffer` with `rows` from `start` on, or at these places, and at least `capacity` places along `axis`.

    If the rows are all that is to come, they become the buffer: nothing is copied.
    """
    if buffer.shape[axis] == 0 and capacity == rows.shape[axis]:
        return copy.copy(rows)  # a handle of its own, see `written`
    return written(grown(buffer, capacity, rows, axis, fill), rows, start, axis)


def words(rows: mx.array) -> mx.array:
    """The same memory as whole words: what moves rows to or from slots takes as long for each value, however short."""
    size = rows.dtype.size
    return rows.view(mx.uint32) if size < 4 and rows.shape[-1] * size % 4 == 0 else rows


def check_packing(name: str, size: int, group_size: int) -> None:
    """Refuse groups that do not divide rows.

    Args:
        name: of the configuration's field that asks for it.
        size: of a row.

    Raises:
        ConfigError: they do not.
    """
    if size % group_size:
        fitting = [str(group) for group in GROUP_SIZES if size % group == 0]
        advice = f"give kv_group_size {' or '.join(fitting)}" if fitting else "leave it out"
        raise ConfigError(f"{name}: rows of {size} values cannot be packed in groups of {group_size}; {advice}")


class RowBuffer:
    """Rows by slot.

    Args:
        axis: of the slots.
        bits: of a packed value; None keeps rows as they are.
        group_size: neighbouring values of a row that share a scale.
    """

    def __init__(self, axis: int, bits: int | None = None, group_size: int = 64):
        self.axis, self.bits, self.group_size = axis, bits, group_size
        self.parts: tuple[mx.array, ...] = ()

    @property
    def capacity(self) -> int:
        return self.parts[0].shape[self.axis] if self.parts else 0

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def write(self, rows: mx.array, start: int | mx.array, capacity: int) -> None:
        """Put rows into the slots from `start` on, or into these slots. There are to be `capacity` of them at least."""
        new = self._packed(rows)
        old = self.parts or tuple(self._slots_of(part, slice(0, 0)) for part in new)
        self.parts = tuple(
            added(buffer, part, start, capacity, self.axis) for buffer, part in zip(old, new, strict=True)
        )

    def grow(self, capacity: int) -> None:
        """Have `capacity` slots at least."""
        self.parts = tuple(grown(part, capacity, part, self.axis) for part in self.parts)

    def fill(self, arrays: Iterator[mx.array]) -> None:
        """Have the next of these arrays as parts."""
        self.parts = tuple(islice(arrays, 1 if self.bits is None else len(PARTS)))

    def put(self, slots: mx.array, rows: mx.array) -> None:
        """Put rows into these slots."""
        self.parts = tuple(
            self._with_slots(part, slots, new) for part, new in zip(self.parts, self._packed(rows), strict=True)
        )

    def read(self, first: int, stop: int) -> MaybePacked:
        """The rows of the slots `[first, stop)`, packed if they are."""
        parts = tuple(self._slots_of(part, slice(first, stop)) for part in self.parts)
        if self.bits is None:
            return parts[0]
        packed, scales, biases = parts
        return Quantized(packed, scales, biases, self.bits, self.group_size)

    def at(self, slots: mx.array) -> mx.array:
        """The rows of these slots."""
        return self.of(slots)._unpacked()

    def of(self, slots: mx.array | slice) -> "RowBuffer":
        """A store of these slots alone."""
        return self._with(tuple(self._slots_of(part, slots) for part in self.parts))

    def like(self) -> "RowBuffer":
        """An empty store with rows in as many bits."""
        return self._with(())

    def joined(self, other: "RowBuffer") -> "RowBuffer":
        """A store of the slots of both."""
        if not self.parts or not other.parts:
            return self if self.parts else other
        pairs = zip(self.parts, other.parts, strict=True)
        return self._with(tuple(mx.concatenate(list(pair), axis=self.axis) for pair in pairs))

    def padded(self, slots: int) -> "RowBuffer":
        """A store with so many slots more."""

        def longer(part: mx.array) -> mx.array:
            return mx.pad(part, [(0, slots if axis == self.axis else 0) for axis in range(part.ndim)])

        return self._with(tuple(longer(part) for part in self.parts))

    def pack(self, bits: int, group_size: int) -> None:
        """From now on keep the rows in so many bits, those too that are there."""
        if self.bits is None:
            self.bits, self.group_size = bits, group_size
            self.parts = self._packed(self.parts[0]) if self.parts else ()

    def fork(self) -> "RowBuffer":
        """A store of its own with the same arrays, until one of the two writes to them."""
        return self._with(tuple(copy.copy(part) for part in self.parts))

    def named(self, name: str) -> dict[str, mx.array]:
        """The parts by name, to be saved."""
        return {f"{name}{ending}": part for ending, part in zip(PARTS, self.parts, strict=False)}

    def restored(self, name: str, arrays: dict[str, mx.array]) -> "RowBuffer":
        """A store like this one of parts that were saved."""
        return self._with(tuple(arrays[name + ending] for ending in PARTS if name + ending in arrays))

    def _with(self, parts: tuple[mx.array, ...]) -> "RowBuffer":
        twin = RowBuffer(self.axis, self.bits, self.group_size)
        twin.parts = parts
        return twin

    def _packed(self, rows: mx.array) -> tuple[mx.array, ...]:
        if self.bits is None:
            return (rows,)
        return tuple(mx.quantize(rows, group_size=self.group_size, bits=self.bits))

    def _unpacked(self) -> mx.array:
        if self.bits is None:
            return self.parts[0]
        return mx.dequantize(*self.parts, group_size=self.group_size, bits=self.bits)

    def _slots_of(self, part: mx.array, slots: mx.array | slice) -> mx.array:
        if isinstance(slots, slice):
            return part[(*[slice(None)] * self.axis, slots)]
        return mx.take(words(part), slots, axis=self.axis).view(part.dtype)

    def _with_slots(self, part: mx.array, slots: mx.array, rows: mx.array) -> mx.array:
        changed = copy.copy(words(part))  # a handle of its own: the caller may still go on with what was there
        changed[(*[slice(None)] * self.axis, slots)] = words(rows.astype(part.dtype))
        return changed.view(part.dtype)
