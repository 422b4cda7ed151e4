"""`LazyCache`: the state of one conversation, and the account of which positions are what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Integer

from ..config import STEP_SIZE, LazyConfig
from ..errors import StateError
from ..stats import LazyStats
from .aux_cache import AuxCache
from .recall import Recall
from .rows import RowBuffer
from .stage import StageCache, handles_of
from .turn import Ranges, Turn

AHEAD = 512  # slots to make beyond those for a decode step's rows, where these need new ones

OnRows = Callable[[int, int, int], None]
"""Called for a prompt, with the stage, rows done in it, rows to do."""


def ignore(stage: int, done: int, rows: int) -> None:
    """An `OnRows` for those who do not want to know."""


def disjoint(ranges: Ranges) -> Ranges:
    """The same positions in rising ranges that do not overlap."""
    apart: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        start = max(start, apart[-1][1]) if apart else start
        if start < stop:
            apart.append((start, stop))
    return apart


def mask_of(ranges: Ranges, places: int) -> Bool[mx.array, " P"]:
    """Made on the device: memory that the host has written to is handed over page by page, after all work before it."""
    place = mx.arange(places)
    return reduce(mx.logical_or, [(place >= start) & (place < stop) for start, stop in ranges])


class Step(NamedTuple):
    """The place of one call in the conversation."""

    start: int  # position of its first token
    stop: int  # the context: all positions so far
    decode: bool  # a generated token, not one of a prompt
    announced: bool  # it is of a prompt whose length is known
    final: bool  # its last token's logits are wanted
    window: int  # rows whose attention scores the others
    rows_at_a_time: int  # to compute behind the first cut
    report: Callable[[int, int, int], None]  # called for a prompt: with the stage, rows done in it, rows to do


class CacheForm(NamedTuple):
    """All that two conversations must have in common for one's arrays to fit the other."""

    config: LazyConfig
    layers: int
    packed: bool  # keys and values are
    aux_bits: int | None
    aux_group_size: int


class LazyCache:
    """One conversation: what mlx-lm sees as the prompt cache's only entry.

    Built by `Model.make_cache()`. `expect` announces how long a prompt is. One that was not announced is taken to end
    with the first token that arrives alone, which may cost time, but never correctness.
    """

    def __init__(self, config: LazyConfig, layers: int):
        self.config = config
        self.edges = [0, *(cut.layer for cut in config.cuts), layers]
        self.stages = [StageCache(stop - start, contiguous=start == 0) for start, stop in pairwise(self.edges)]
        self.aux = AuxCache(len(config.cuts), config.aux_bits, config.kv_group_size)
        self.packed = False  # keys and values are kept in few bits
        self.offset = 0
        self.expected = 0  # tokens of a prompt that are still to come
        self.turn = Turn()
        self.safe: mx.array | None = None  # what is protected while the newest answer is generated
        self.recall: Recall | None = None  # of the newest answer, if it sees the tokens that were left behind
        self.queries: mx.array | None = None  # (1, H, w, D_h): before the first cut, of the newest prompt tokens
        self.prompt_queries = RowBuffer(0)  # (N, H * D_h): there too, of all of them, if they may be asked in turn
        self.lent: RowBuffer | None = None  # (N, D): what came to the first cut, of all of them, if others may have it

    @classmethod
    def of(cls, form: CacheForm, behind: Sequence[mx.array]) -> "LazyCache":
        """Another conversation behind its first cut, of which nothing but arrays is known: any slot may be empty."""
        cache = cls(form.config, form.layers)
        cache.aux = AuxCache(len(form.config.cuts), form.aux_bits, form.aux_group_size)
        if form.packed:
            cache._pack(*form.config.packing)
        cache.go_on_from(behind)
        for stage in cache.stages[1:]:
            stage.open()
        return cache

    @property
    def form(self) -> CacheForm:
        rows = self.aux.rows
        return CacheForm(self.config, self.edges[-1], self.packed, rows.bits, rows.group_size)

    def expect(self, tokens: int, *, complete: bool = True, tail: int = 0) -> None:
        """Announce the next `tokens` tokens as one prompt or question.

        Args:
            complete: the prompt ends with them; if not, they are read (stage 0 alone), and the prompt goes on later.
            tail: how many of its last tokens are the chat template's; they are protected.

        Raises:
            StateError: a prompt is still being read.
        """
        if tokens < 1:
            raise StateError(f"a prompt has at least 1 token, got {tokens}")
        if self.expected:
            raise StateError(f"a prompt is still being read: {self.expected} of its tokens are to come")
        self.expected, self.turn = tokens, self.turn.expecting(complete, tail)

    def lend(self) -> None:
        """From the first token on, keep what other conversations need to go on from tokens of this one."""
        self.lent = RowBuffer(0, self.config.aux_bits, self.config.kv_group_size)

    def leave(self, x: Float[mx.array, "1 L D"], step: Step) -> None:
        """A prompt's rows have come to the first cut, and wait there."""
        self.aux.leave(x, step.start, ahead=self.expected)
        if self.lent is not None:
            self.lent.write(x.squeeze(0), step.start, step.stop + self.expected)

    def layers_of(self, stage: int) -> tuple[int, int]:
        """The first layer of a stage, and the first one behind it."""
        return self.edges[stage], self.edges[stage + 1]

    def begin(self, L: int, rows_at_a_time: int = STEP_SIZE, report: OnRows | None = None) -> Step:
        """Take in `L` tokens and say what they are."""
        if self.config.kv_bits is not None and not self.packed and self.offset >= self.config.quantized_kv_start:
            self._pack(*self.config.packing)
        announced, start = self.expected > 0, self.offset
        if announced and L > self.expected:
            raise StateError(f"expected the last {self.expected} tokens of a prompt, got {L}")
        decode = not announced and L == 1 and not self.turn.reading and start > 0
        self.expected -= L if announced else 0
        self.offset += L
        final = (self.expected == 0 and self.turn.complete) if announced else L == 1
        if decode:
            self.turn = self.turn.with_generated(start)
        else:
            self._note_prompt(start, final)
        window = 1 if decode else min(self.config.window, self.offset - self.turn.queries_start)
        return Step(start, self.offset, decode, announced, final, window, rows_at_a_time, report or ignore)

    def keep_as(self, config: LazyConfig) -> None:
        """Go on with the storage of another configuration: what is to be packed will be, from the next tokens on.

        Raises:
            StateError: it is packed already, in another way.
        """
        now = self.config
        if self.packed and (config.kv_bits, config.kv_group_size) != (now.kv_bits, now.kv_group_size):
            raise StateError(
                f"the cache is kept in {now.kv_bits} bits, in groups of {now.kv_group_size}, and cannot be changed to "
                f"{config.kv_bits} bits in groups of {config.kv_group_size}"
            )
        rows = self.aux.rows
        if rows.bits is not None:
            config = replace(config, aux_bits=config.aux_bits or rows.bits)  # what is packed stays so
            if (config.aux_bits, config.kv_group_size) != (rows.bits, rows.group_size):
                raise StateError(
                    f"hidden states are kept in {rows.bits} bits, in groups of {rows.group_size}, and cannot be "
                    f"changed to {config.aux_bits} bits in groups of {config.kv_group_size}"
                )
        if config.aux_bits is not None:
            rows.pack(config.aux_bits, config.kv_group_size)
        self.config = config

    def _pack(self, bits: int, group_size: int) -> None:
        for stage in self.stages:
            for layer in stage.layers:
                layer.pack(bits, group_size)
        self.packed = True

    def _note_prompt(self, start: int, final: bool) -> None:
        if not self.turn.reading:
            self.queries = None
        self.recall = None
        self.turn = self.turn.with_prompt(start, self.offset, final)
        if final:
            self.safe = None

    def protected(self, step: Step, ahead: int = 0) -> Ranges:
        """Positions that are never left behind: sink, recent, the template's tail, generated, the window, and the last
        `ahead`, which look ahead."""
        recent = max(self.turn.end - self.config.recent - self.turn.tail, 0), self.turn.end
        sink, window = (0, min(self.config.sink, step.stop)), (step.stop - max(step.window, ahead), step.stop)
        return disjoint([sink, recent, *self.turn.generated, window])

    def protected_while_generating(self, step: Step) -> Bool[mx.array, " P"]:
        """The same as a mask, for all tokens of an answer: what comes behind the prompt is protected."""
        places = self.aux.places
        if self.safe is None or self.safe.shape[0] != places:
            self.safe = mask_of([*self.protected(step), (self.turn.end, places)], places)
        return self.safe

    def fork(self) -> "LazyCache":
        """An independent conversation with the same past. Arrays are shared until one of the two writes to them."""
        twin = handles_of(self)
        twin.stages = [stage.fork() for stage in self.stages]
        twin.aux = handles_of(self.aux)
        return twin

    @property
    def waiting(self) -> int:
        """Tokens that were left behind, and did not come back."""
        return sum(self.aux.waiting_at)

    def make_room(self, rows: int) -> None:
        """For so many rows in each stage behind the first cut. All stages grow at once: a new shape costs time."""
        behind = self.stages[1:]
        if any(stage.capacity < stage.filled + rows for stage in behind):
            for stage in behind:
                stage.grow(stage.filled + rows + AHEAD)

    def coming_back(self, budget: int) -> tuple[int, ...]:
        """How many tokens can come back at each cut, at most `budget`; those count too that just came from before."""
        back = [0]
        for waiting in self.aux.waiting_at:
            back.append(min(budget, waiting + back[-1]))
        return tuple(back[1:])

    def slots_for(self, back: Sequence[int]) -> list[Integer[mx.array, " _"]]:
        """In each stage behind the first cut, those of the new token's row and of the rows that come back."""
        behind = zip(self.stages[1:], back, strict=True)
        return [mx.arange(stage.filled, stage.filled + 1 + n, dtype=mx.int32) for stage, n in behind]

    def came_back(self, back: Sequence[int]) -> None:
        """Count so many tokens on from each cut, and their rows and one more in each stage behind."""
        for cut, n in enumerate(back, 1):
            self.aux.went(n, cut)
            self.stages[cut].filled += 1 + n
        layers = sum(n * len(self.stages[cut].layers) for cut, n in enumerate(back, 1))
        self.turn = self.turn.with_revived(sum(back), layers)

    @property
    def behind(self) -> list[mx.array]:
        """What a budgeted decode step changes behind the first cut."""
        return [a for stage in self.stages[1:] for a in stage.arrays] + self.aux.arrays

    def go_on_from(self, behind: Sequence[mx.array]) -> None:
        """Have these arrays in the place of those behind the first cut."""
        arrays = iter(behind)
        for part in (*self.stages[1:], self.aux):
            part.fill(arrays)

    # what mlx-lm's loops ask of a cache

    @property
    def state(self) -> list[mx.array]:
        """Every array, so that a loop can evaluate them."""
        return [a for stage in self.stages for layer in stage.layers for a in layer.arrays] + self.beside

    @property
    def beside(self) -> list[mx.array]:
        """All but keys and values: what the next chunk of a prompt does not write to in its first layers."""
        arrays = [stage.positions for stage in self.stages] + self.aux.arrays + [*self.prompt_queries.parts]
        arrays += [] if self.lent is None else [*self.lent.parts]
        arrays += self.recalled
        return arrays + ([] if self.queries is None else [self.queries])

    @property
    def recalled(self) -> list[mx.array]:
        """What the newest answer knows of the tokens that were left behind."""
        return [] if self.recall is None else self.recall.arrays

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.state)

    def empty(self) -> bool:
        return self.offset == 0

    def size(self) -> int:
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        """Forget the last `n` positions, in every stage and in the aux cache. Returns how many there were to forget."""
        n = max(min(n, self.offset), 0)
        if n == 0:
            return 0
        self.offset -= n
        self.queries, self.safe, self.recall, self.expected = None, None, None, 0
        self.turn = self.turn.trimmed(self.offset)
        self.prompt_queries = self.prompt_queries.of(slice(self.offset))
        self.lent = None if self.lent is None else self.lent.of(slice(self.offset))
        for stage in self.stages:
            stage.trim(self.offset)
        if self.config.cuts:
            self.aux.trim(self.offset)
        return n

    def computed(self) -> tuple[int, ...]:
        """Tokens computed in each stage (waits for the device)."""
        if len(self.stages) == 1:
            return (self.offset,)
        depth = np.array(self.aux.depth[: self.offset])
        return tuple(int((depth > stage).sum()) for stage in range(len(self.stages)))

    def stats(self, ttft_s: float | None = None) -> LazyStats:
        """What this conversation has cost so far (waits for the device)."""
        computed = self.computed()
        layers = [len(stage.layers) for stage in self.stages]
        total = sum(layers) * max(self.offset, 1)
        done = sum(n * tokens for n, tokens in zip(layers, computed, strict=True))
        return LazyStats(
            mode="lazy" if done < total or any(kept < self.turn.end for kept in self.turn.kept) else "dense",
            schedule=str(self.config.schedule),
            prompt_tokens=self.turn.end - self.turn.start,
            prompt_end=self.turn.end,
            context_tokens=self.offset,
            ttft_s=ttft_s,
            kept=self.turn.kept,
            computed=computed,
            computed_fraction=done / total,
            revived=self.turn.revived,
            revived_fraction=self.turn.revived_layers / total,
            kv_bytes=sum(a.nbytes for a in [*self.recalled, *(a for stage in self.stages for a in stage.arrays)]),
            aux_bytes=sum(a.nbytes for a in self.aux.arrays)
            + self.prompt_queries.nbytes
            + (0 if self.lent is None else self.lent.nbytes),
        )
