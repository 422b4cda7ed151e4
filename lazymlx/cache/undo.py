"""`Mark`: a point in a conversation's past that it can be brought back to, bit by bit the same.

A copy of the cache would do, at the price of all its memory for every turn that may be undone. Slots of the layers
are written once, so of keys and values a count is enough. Hidden states do leave the aux cache; a mark holds on to
those of its time, and once it is sealed only to those that left since. What was packed meanwhile stays packed: its
last digits are gone.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from .aux_cache import AuxCache
from .conversation import LazyCache
from .rows import RowBuffer
from .stage import NOWHERE, StageCache, handles_of


class Mark:
    """A point in the past of one cache. It stays valid while nothing before it is trimmed away."""

    def __init__(self, cache: LazyCache):
        self.offset, self.expected, self.turn, self.queries = cache.offset, cache.expected, cache.turn, cache.queries
        self.config, self.recall = cache.config, cache.recall
        self.packing = packing_of(cache)
        self.asked = cache.prompt_queries.capacity
        self.slots = [Slots.of(stage) for stage in cache.stages]
        self.aux: AuxCache | None = handles_of(cache.aux)
        self.left = np.array([], int)  # positions whose hidden states left the aux cache since, once sealed
        self.depth = np.array([], np.int32)  # the number of stages that they had been computed in
        self.rows = RowBuffer(0)  # and the hidden states, (L, D)

    @property
    def nbytes(self) -> int:
        """What a sealed mark keeps alive."""
        return self.rows.nbytes

    def seal(self, cache: LazyCache) -> None:
        """The turn is over: let go of all that `cache` still has (waits for the device)."""
        if self.aux is None:
            return
        before, after = (np.array(aux.depth[: self.offset]) for aux in (self.aux, cache.aux))
        self.left = np.flatnonzero(before != after)
        self.depth = before[self.left]
        self.rows = self.aux.rows.of(self.aux.slots[on_device(self.left)])
        mx.eval(self.rows.parts)
        self.aux = self.recall = None

    def restore(self, cache: LazyCache) -> None:
        """Bring `cache` back: after any failure while the mark is open, after its turn alone once it is sealed."""
        aux = self._restored_aux(cache) if self.aux is None else handles_of(self.aux)
        _pack_as(aux.rows, cache.aux.rows)
        for stage, slots in zip(cache.stages, self.slots, strict=True):
            slots.restore(stage)
        if packing_of(cache) == self.packing:
            cache.config = self.config
        cache.offset, cache.expected, cache.turn, cache.queries = self.offset, self.expected, self.turn, self.queries
        cache.prompt_queries = cache.prompt_queries.of(slice(self.asked))
        cache.aux, cache.safe, cache.recall = aux, None, self.recall
        mx.eval(cache.state)  # by the thread that asked for it; another may go on

    def with_lost(self, later: "Mark") -> "Mark":
        """A mark that can be restored when `later`, whose turn came after this one's, no longer will be."""
        new = np.flatnonzero((later.left < self.offset) & ~np.isin(later.left, self.left))
        mark = copy.copy(self)
        mark.left = np.concatenate([self.left, later.left[new]])
        mark.depth = np.concatenate([self.depth, later.depth[new]])
        rows = self.rows.fork()
        _pack_as(rows, later.rows)
        mark.rows = rows.joined(later.rows.of(on_device(new))) if len(new) else rows
        mx.eval(mark.rows.parts)
        return mark

    def _restored_aux(self, cache: LazyCache) -> AuxCache:
        """The aux cache of then: the rows that are still there, and those that left."""
        now = cache.aux
        aux = AuxCache(len(now.waiting_at), now.rows.bits, now.rows.group_size)
        depth, source = np.array(now.depth[: self.offset]), np.array(now.slots[: self.offset])
        depth[self.left] = self.depth
        source[self.left] = now.rows.capacity + np.arange(len(self.left))
        left = self.rows.fork()
        _pack_as(left, now.rows)
        rows = now.rows.joined(left) if len(self.left) else now.rows
        aux.lay_out(rows.of(on_device(source[depth < len(cache.stages)])), depth)
        return aux


class Slots(NamedTuple):
    """What a stage held."""

    filled: int
    capacity: int

    @classmethod
    def of(cls, stage: StageCache) -> "Slots":
        return cls(stage.filled, stage.capacity)

    def restore(self, stage: StageCache) -> None:
        """Forget the slots behind the first `filled`; with the old capacity, all shapes and roundings are as before."""
        stage.filled = self.filled
        stage.positions = stage.positions[: self.capacity]
        stage.positions[self.filled :] = NOWHERE  # steps that revive look at all slots
        for layer in stage.layers:
            layer.keep(slice(self.capacity))


def cut_back(marks: Sequence[Mark | None], offset: int) -> list[Mark | None]:
    """The marks of successive turns without those behind `offset`; earlier ones get of these what they would lack."""
    kept, lost = list[Mark | None](), None
    for mark in reversed(marks):
        if mark is not None and lost is not None:
            mark, lost = mark.with_lost(lost), None
        if mark is not None and mark.offset > offset:
            mark, lost = None, mark
        kept.append(mark)
    return kept[::-1]


def packing_of(cache: LazyCache) -> tuple[bool, int | None]:
    """What is packed of a conversation: keys and values, and to how many bits its hidden states."""
    return cache.packed, cache.aux.rows.bits


def _pack_as(rows: RowBuffer, other: RowBuffer) -> None:
    if other.bits is not None:
        rows.pack(other.bits, other.group_size)


def on_device(index: np.ndarray) -> mx.array:
    return mx.array(index.astype(np.int32))
