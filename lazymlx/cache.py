"""The state of one conversation: `KVPool`, `StageCache`, `AuxCache`, and `LazyCache`, which owns them.

All layers of a stage hold the same tokens, so there is one table of positions a stage, and a slot means the same
token in each of its pools. Slots are in the order of arrival; attention does not mind, since keys were rotated by
their true positions and masks compare positions. A token that was left behind has its hidden state in exactly one
row of the aux cache, whichever cut it waits at: `depth`, the number of stages it has been computed in, tells which.
"""

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from .config import LazyConfig
from .errors import StateError
from .selection import NO_CANDIDATE
from .stats import LazyStats

STEP = 256  # slots by which buffers grow
NOWHERE = 2**30  # position of an empty slot: later than any query, so that every mask hides it


@dataclass(frozen=True)
class Span:
    """Where the rows of a call go in a stage's pools: from slot `start` on; they then attend to slots `[0, stop)`."""

    start: int | mx.array = 0
    stop: int = 0
    capacity: int = 0
    context: int = 0


def grown(buffer: mx.array | None, capacity: int, like: mx.array, axis: int, fill: int = 0) -> mx.array:
    """`buffer` with at least `capacity` places along `axis`, made in steps of `STEP`."""
    have = 0 if buffer is None else buffer.shape[axis]
    if buffer is not None and have >= capacity:
        return buffer
    shape = list(like.shape)
    shape[axis] = -(-capacity // STEP) * STEP - have
    extra = mx.full(shape, fill, dtype=like.dtype)
    return extra if buffer is None else mx.concatenate([buffer, extra], axis=axis)


def written(buffer: mx.array, rows: mx.array, start: int | mx.array, axis: int) -> mx.array:
    """`buffer` with `rows` from `start` on; a start that lives on the device costs no wait."""
    if isinstance(start, mx.array):
        return mx.slice_update(buffer, rows, start, axes=(axis,))
    index = [slice(None)] * buffer.ndim
    index[axis] = slice(start, start + rows.shape[axis])
    buffer[tuple(index)] = rows
    return buffer


class KVPool:
    """Keys and values of one layer, `(1, H_kv, capacity, D_h)`, in order of arrival."""

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def append(
        self, keys: Float[mx.array, "1 H_kv L D_h"], values: Float[mx.array, "1 H_kv L D_h"], span: Span
    ) -> tuple[Float[mx.array, "1 H_kv S D_h"], Float[mx.array, "1 H_kv S D_h"]]:
        """Write the rows and return all that they may attend to."""
        self.keys = written(grown(self.keys, span.capacity, keys, 2), keys, span.start, 2)
        self.values = written(grown(self.values, span.capacity, values, 2), values, span.start, 2)
        return self.keys[:, :, : span.stop], self.values[:, :, : span.stop]

    def keep(self, slots: mx.array) -> None:
        """Drop all slots but these."""
        if self.keys is not None:
            self.keys, self.values = self.keys[:, :, slots], self.values[:, :, slots]


class StageCache:
    """The pools of the layers between two cuts, and the position held by each of their slots."""

    def __init__(self, layers: int):
        self.pools = [KVPool() for _ in range(layers)]
        self.positions: mx.array | None = None
        self.filled = 0  # slots in use, or a bound on it while `count` is set
        self.count: mx.array | None = None  # slots in use, once decode steps made it depend on data
        self.highest = -1
        self.in_order = True  # slots hold rising positions and nothing else

    def append(
        self,
        positions: Integer[mx.array, " L"],
        context: int,
        *,
        bounds: tuple[int, int] | None,
        valid: mx.array | None = None,
        ahead: int = 0,
    ) -> Span:
        """Make room for rows.

        Args:
            positions: of the rows; `NOWHERE` for those that do not count.
            bounds: the first and last of them if they rise and all count; None if that depends on data.
            valid: how many count; they come first, and the others are overwritten by the next call.
            ahead: how many more are to come soon.
        """
        L = positions.shape[0]
        start, capacity = self.filled if self.count is None else self.count, self.filled + L + ahead
        if valid is not None or self.count is not None:
            start = start if isinstance(start, mx.array) else mx.array(start, mx.int32)
            self.count = start + (L if valid is None else valid)
        self.filled = min(self.filled + L, context)  # no more than every position once
        self.in_order = self.in_order and bounds is not None and bounds[0] > self.highest
        self.highest = max(self.highest, context - 1 if bounds is None else bounds[1])
        positions = positions.astype(mx.int32)
        self.positions = written(grown(self.positions, capacity, positions, 0, NOWHERE), positions, start, 0)
        return Span(start, self.filled, capacity, context)

    def visible(
        self, positions: Integer[mx.array, " L"], selected: Bool[mx.array, " N"] | None
    ) -> Bool[mx.array, "L S"]:
        """Which slots rows at these positions may see: nothing later than themselves, and only what was selected."""
        table = self.positions[: self.filled]
        mask = table[None] <= positions[:, None]
        if selected is not None:
            mask = mask & selected[mx.minimum(table, selected.shape[0] - 1)][None]
        return mask

    def by_position(self, importance: Float[mx.array, " S"], context: int) -> Float[mx.array, " N"]:
        """Bring values of the slots into the order of the positions; 0 where nothing was computed."""
        if self.in_order and self.filled == context:
            return importance
        scattered = mx.zeros((context + 1,), importance.dtype)
        scattered[mx.minimum(self.positions[: self.filled], context)] = importance
        return scattered[:context]

    def settle(self) -> None:
        """Learn how many slots are in use (waits for the device)."""
        if self.count is not None:
            self.filled, self.count = int(self.count.item()), None

    def trim(self, offset: int) -> None:
        """Forget all positions from `offset` on."""
        self.settle()
        if self.filled == 0:
            return
        held = np.array(self.positions[: self.filled])
        slots = np.flatnonzero(held < offset)
        if len(slots) == self.filled:
            return
        index = mx.array(slots)
        self.positions = mx.array(held[slots]) if len(slots) else None
        for pool in self.pools:
            pool.keep(index)
        self.filled = len(slots)
        self.highest = int(held[slots].max(initial=-1))

    @property
    def arrays(self) -> list[mx.array]:
        arrays = [a for pool in self.pools for a in (pool.keys, pool.values)] + [self.positions, self.count]
        return [a for a in arrays if a is not None]


class Taken(NamedTuple):
    """Rows taken out of the aux cache, to be computed in a stage."""

    x: mx.array  # (1, L, D)
    positions: mx.array  # (L,)
    slots: mx.array  # (L,), where they came from
    bounds: tuple[int, int] | None = None  # first and last position, if known on the host
    valid: mx.array | None = None  # how many of them count, if that depends on data


class AuxCache:
    """Hidden states of tokens left behind: for each, the input of the first layer that it was not computed in.

    Tokens are taken out exactly (`take`, waits for the device once) or within a budget (`take_best`, never waits). A
    row returns to its own slot when its token waits at the next cut, so a decode step neither allocates nor moves.
    """

    def __init__(self) -> None:
        self.rows: mx.array | None = None  # (capacity, D)
        self.used = 0
        self.depth: mx.array | None = None  # (capacity of positions,), stages in which each was computed
        self.slots: mx.array | None = None  # (capacity of positions,), row of each that waits

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

    def take(self, missing: np.ndarray, cut: int) -> Taken:
        """Take the tokens at these rising positions, which wait at `cut`."""
        index = mx.array(missing.astype(np.int32))
        slots = self.slots[index]
        self.depth[index] = cut + 1
        bounds = (int(missing[0]), int(missing[-1])) if len(missing) else None
        return Taken(self.rows[slots][None], index, slots, bounds)

    def take_best(self, keys: Int64[mx.array, " N"], cut: int, budget: int) -> Taken:
        """Take at most `budget` of the tokens that wait at `cut`, those with the highest keys; the best come first."""
        N = keys.shape[0]
        waiting = mx.where(self.depth[:N] == cut, keys, mx.array(NO_CANDIDATE, mx.int64))
        order = mx.argsort(waiting)[::-1][:budget].astype(mx.int32)
        counts = waiting[order] != NO_CANDIDATE
        slots = mx.where(counts, self.slots[order], self.used)  # the row behind the last is nobody's
        self.depth[mx.where(counts, order, self.depth.shape[0] - 1)] = cut + 1
        return Taken(self.rows[slots][None], mx.where(counts, order, NOWHERE), slots, None, counts.astype(mx.int32).sum())

    def put_back(self, slots: Integer[mx.array, " L"], x: Float[mx.array, "1 L D"]) -> None:
        """Keep the outputs of a stage for tokens that were taken from these slots; they now wait at the next cut."""
        self.rows[slots] = x[0]

    def compact(self, offset: int, stages: int) -> int:
        """Drop the rows of tokens computed in every stage (waits for the device). Returns how many still wait."""
        if self.depth is None:
            return 0
        waiting = np.flatnonzero(np.array(self.depth[:offset]) < stages)
        self.used = len(waiting)
        index = mx.array(waiting.astype(np.int32))
        self.rows = mx.concatenate([self.rows[self.slots[index]], mx.zeros((1, self.rows.shape[1]), self.rows.dtype)])
        self.slots[index] = mx.arange(self.used, dtype=mx.int32)
        return self.used

    @property
    def arrays(self) -> list[mx.array]:
        return [a for a in (self.rows, self.depth, self.slots) if a is not None]


class Step(NamedTuple):
    """The place of one call in the conversation."""

    start: int  # position of its first token
    stop: int  # the context: all positions so far
    decode: bool  # a generated token, not one of a prompt
    final: bool  # its last token's logits are wanted
    window: int  # rows whose attention scores the others


class LazyCache:
    """One conversation: what mlx-lm sees as the prompt cache's only entry.

    Built by `Model.make_cache()`. It is told with `expect` how long a prompt is; a cache that was not told takes the
    first token that arrives alone for the last of the prompt, which may cost time, but never correctness.
    """

    def __init__(self, config: LazyConfig, layers: int):
        self.config = config
        edges = [0, *(cut.layer for cut in config.cuts), layers]
        self.stages = [StageCache(stop - start) for start, stop in zip(edges, edges[1:])]
        self.aux = AuxCache()
        self.offset = 0
        self.step_size = 2048  # rows computed at a time in prefill
        self.expected = 0  # tokens of a prompt that are still to come
        self.held: mx.array | None = None  # embeddings that wait for the prompt's last token, (1, L, D)
        self.reading = False  # prompt tokens came, but not the last one
        self.turn_start = 0  # where the newest prompt begins
        self.prompt_end = 0  # and ends
        self.tail = 0  # its last tokens, if they are the chat template's
        self.generated: list[tuple[int, int]] = []  # ranges of positions
        self.queries: mx.array | None = None  # (1, H, w, D_h), of the newest prompt tokens, in the layer before the first cut
        self.waiting = 0  # tokens in the aux cache, or a bound on it while generating
        self.kept: tuple[int, ...] = ()
        self.revived: int | mx.array = 0

    def expect(self, tokens: int, *, tail: int = 0, step_size: int | None = None) -> None:
        """Say that the next `tokens` tokens are one prompt or question, the last `tail` of them the template's."""
        if tokens < 1:
            raise StateError(f"a prompt has at least 1 token, got {tokens}")
        if self.expected:
            raise StateError(f"a prompt is still being read: {self.expected} of its tokens are to come")
        self.expected, self.tail = tokens, tail
        self.step_size = step_size or self.step_size

    def holds_back(self, L: int) -> bool:
        """Whether a chunk of `L` tokens had better be computed together with the prompt's last token."""
        return self.held is None and self.expected == L + 1

    def begin(self, L: int) -> Step:
        """Take in `L` tokens and say what they are."""
        told, start = self.expected > 0, self.offset
        if told and L > self.expected:
            raise StateError(f"expected the last {self.expected} tokens of a prompt, got {L}")
        decode = not told and L == 1 and not self.reading and start > 0
        self.expected -= L if told else 0
        self.offset += L
        final = self.expected == 0 if told else L == 1
        if decode:
            self._note_generated(start)
        else:
            self._note_prompt(start, final)
        window = 1 if decode else min(self.config.window, self.offset - self.turn_start)
        return Step(start, self.offset, decode, final, window)

    def _note_generated(self, position: int) -> None:
        if self.generated and self.generated[-1][1] == position:
            self.generated[-1] = (self.generated[-1][0], position + 1)
        else:
            self.generated.append((position, position + 1))

    def _note_prompt(self, start: int, final: bool) -> None:
        if not self.reading:
            self.turn_start, self.queries = start, None
        self.reading = not final
        if final:
            self.prompt_end = self.offset

    def protected(self, step: Step) -> np.ndarray:
        """Positions that are never left behind, `(N,)`: sink, recent, the template's tail, generated, the window."""
        mask = np.zeros(step.stop, bool)
        mask[: self.config.sink] = True
        mask[max(self.prompt_end - self.config.recent - self.tail, 0) : self.prompt_end] = True
        for start, stop in self.generated:
            mask[start:stop] = True
        mask[step.stop - step.window :] = True
        return mask

    # what mlx-lm's loops ask of a cache

    @property
    def state(self) -> list[mx.array]:
        """Every array, so that a loop can evaluate them."""
        arrays = [a for stage in self.stages for a in stage.arrays] + self.aux.arrays
        return arrays + [a for a in (self.held, self.queries) if a is not None]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.state)

    def empty(self) -> bool:
        return self.offset == 0 and self.held is None

    def size(self) -> int:
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        """Forget the last `n` positions, in every stage and in the aux cache. Returns how many there were to forget."""
        n = min(n, self.offset)
        self.offset -= n
        self.held, self.queries, self.expected, self.reading = None, None, 0, False
        self.turn_start, self.prompt_end = min(self.turn_start, self.offset), min(self.prompt_end, self.offset)
        self.generated = [(a, min(b, self.offset)) for a, b in self.generated if a < self.offset]
        for stage in self.stages:
            stage.trim(self.offset)
        self.waiting = self.aux.compact(self.offset, len(self.stages))
        return n

    def computed(self) -> tuple[int, ...]:
        """Tokens computed in each stage (waits for the device)."""
        if len(self.stages) == 1:
            return (self.offset,)
        if self.aux.depth is None:
            return (0,) * len(self.stages)
        depth = np.array(self.aux.depth[: self.offset])
        return tuple(int((depth > stage).sum()) for stage in range(len(self.stages)))

    def stats(self, ttft_s: float | None = None) -> LazyStats:
        """What this conversation has cost so far (waits for the device)."""
        computed = self.computed()
        layers = [len(stage.pools) for stage in self.stages]
        whole = sum(layers) * max(self.offset, 1)
        done = sum(n * tokens for n, tokens in zip(layers, computed))
        return LazyStats(
            mode="lazy" if done < whole else "dense",
            schedule=str(self.config.schedule),
            prompt_tokens=self.prompt_end - self.turn_start,
            context_tokens=self.offset,
            ttft_s=ttft_s,
            kept=self.kept,
            computed=computed,
            computed_fraction=done / whole,
            revived=int(self.revived),
            kv_bytes=sum(a.nbytes for stage in self.stages for a in stage.arrays),
            aux_bytes=sum(a.nbytes for a in self.aux.arrays),
        )
