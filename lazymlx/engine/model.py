"""The staged model: layers between cuts, and the one operation that serves them all.

Prefill, decode and a follow-up question are the same `advance`: new tokens run through stage 0; at each cut the
tokens of the stage are scored and selected, the selected ones that were not computed behind the cut yet are taken out
of the aux cache, run, and the last token's row goes to the head (LazyLLM sec 3.2). It comes in two kinds of
bookkeeping: exact, which learns from the device which tokens were selected, and within a budget, whose shapes are
fixed, so that a decode step never waits.
"""

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Integer

from ..cache.aux_cache import Moved
from ..cache.conversation import Form, LazyCache, Step, mask_of
from ..cache.masks import Mask
from ..cache.rows import check_packing
from ..config import Cut, LazyConfig
from ..errors import StateError
from ..nn.attend import FEW_ROWS
from ..nn.attention import Rows
from ..nn.compiling import Replay
from ..nn.families import Family
from ..nn.windows import resolved
from .selection import best_waiting, select
from .staged import Staged, last_rows


class Model(Staged):
    """A causal language model that can be lazy. Without a cache it is the plain dense model.

    Args:
        args, family: see `Network`.
    """

    def __init__(self, args: Any, family: Family | None = None):
        super().__init__(args, family)
        self.lazy = LazyConfig()
        self.stretched = any(self.family.attention_of(layer).stretched for layer in self.layers)
        self.replay = Replay()  # of decode steps that revive

    def make_cache(self, lazy: LazyConfig | None = None) -> list[LazyCache]:
        """An empty conversation, as mlx-lm's loops want it: a list, here with a single entry for all layers."""
        return [LazyCache(self.resolve(lazy or self.lazy), len(self.layers))]

    def resolve(self, lazy: LazyConfig) -> LazyConfig:
        """A configuration with its cuts for this model.

        Raises:
            ConfigError: the model cannot be cut there, or its rows not be packed.
        """
        config = resolved(lazy, self.windows)
        if config.kv_bits is not None:
            check_packing("kv_bits", self.head_size, config.kv_group_size)
        if config.aux_bits is not None:
            check_packing("aux_bits", self.hidden_size, config.kv_group_size)
        return config

    def __call__(
        self,
        inputs: Integer[mx.array, "B L"],
        cache: list[LazyCache] | None = None,
        input_embeddings: Float[mx.array, "B L D"] | None = None,
    ) -> Float[mx.array, "B T V"] | None:
        """Logits.

        Without a cache: for every token. With one: for the last token (T = 1), or None while the prompt is not
        complete; with an empty schedule and a cache that was not told a prompt's length, for every token.
        """
        x = self.embedded(inputs, input_embeddings)
        if cache is None:
            return self.answer(self.dense(x))
        if x.shape[0] != 1:
            raise StateError(f"a lazy cache holds one conversation, got a batch of {x.shape[0]}")
        return self.advance(x, cache[0])

    def advance(self, x: Float[mx.array, "1 L D"], cache: LazyCache) -> Float[mx.array, "1 T V"] | None:
        """Take the embeddings of new tokens into the conversation."""
        step = cache.begin(x.shape[1])
        x, asking = self._first_stage(cache, step, x)
        if step.told:
            cache.corner = x[:, -1:, :1]
        if not cache.config.cuts:
            return self.answer(x[:, -1:] if step.told else x) if step.final or not step.told else None
        queries = asking.queries
        if step.decode:
            cache.aux.pass_by(step.start)
        else:
            cache.aux.append(x, step.start, ahead=cache.expected)
            self._note_queries(cache, step, queries)
            queries = cache.queries = last_rows(cache.queries, queries, cache.config.window)
        if not step.final:
            return None
        return self.answer(self._deepen(cache, step, x[:, -1:], queries[:, :, -step.window :]))

    def _first_stage(self, cache: LazyCache, step: Step, x: mx.array) -> tuple[mx.array, Rows]:
        positions = mx.arange(step.start, step.stop, dtype=mx.int32)
        mask: Mask = "causal" if x.shape[1] > 1 else None
        answering = step.told and not cache.config.cuts
        # one slot more in decode, as the tables of positions have: what is scored is as long as they are
        span = cache.stages[0].append(positions, step.stop, ahead=1 if step.decode else cache.expected)
        # rotated one by one, many rows lie as the projection left them, and CUDA's kernel takes two thirds of the time
        at = positions if x.shape[1] > FEW_ROWS else step.start
        return self._run(cache, 0, x, at, mask, span, answering=answering, at_once=not step.decode)

    def _deepen(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array) -> mx.array:
        """From the outputs of stage 0 to the last token's output of the last stage, `(1, 1, D)`."""
        config = cache.config
        if not step.decode or config.revive is None:
            return self._exactly(cache, step, x, queries)
        resting = config.revive == 0 or cache.waiting == 0 or (step.start - cache.prompt_end) % config.revive_every
        if resting and config.attend == "computed":
            return self._pass_through(cache, step, x)
        return self._within_budget(cache, step, x, queries, config.revive)

    def _pass_through(self, cache: LazyCache, step: Step, x: mx.array) -> mx.array:
        """Decode with nothing to revive: the new token alone."""
        cache.make_room(1)
        position = mx.arange(step.start, step.stop, dtype=mx.int32)
        for number in range(1, len(cache.stages)):
            span = cache.stages[number].append(position, step.stop)
            x, _ = self._run(cache, number, x, step.start, None, span)
        return x

    def _within_budget(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array, budget: int) -> mx.array:
        """Decode: the new token, and at each cut the best `budget` of the tokens that wait there. Never waits.

        How many come back is known beforehand. From the first cut on shapes stay as they are from step to step, so what
        is done there is traced once and repeated (`Replay`).
        """
        config, stages = cache.config, cache.stages[1:]
        cache.make_room(1 + budget)
        new = mx.arange(step.start, step.stop, dtype=mx.int32)
        protected, form = cache.protected_while_generating(step), cache.form
        back = cache.within(budget)
        slots = [mx.arange(s.filled, s.filled + 1 + n, dtype=mx.int32) for s, n in zip(stages, back, strict=True)]
        kept = None
        if config.attend == "selected":
            kept = [step.stop if step.stop < config.min_tokens else cut.count(step.stop) for cut in config.cuts]
        context = step.stop if self.stretched else cache.aux.places  # the latter is the same for many steps
        sizes = context, cache.aux.rows.capacity, *(stage.capacity for stage in cache.stages)
        # a scorer of one's own may look at values
        same = kept is None and not self.stretched and config.scorer is None
        me: Any = weakref.proxy(self)  # a trace is kept by the model, and must not keep it
        function = partial(Model._behind_cuts, me, form, back, kept, context)
        scored = [*self._scoring(cache, 0)[1].parts, cache.stages[0].positions]
        given = x, new, slots, queries, scored, protected, cache.behind
        x, behind = self.replay(function, (form, back, sizes) if same else None, self.layers, *given)
        cache.go_on_from(behind)
        cache.came_back(back)
        return x

    def _behind_cuts(
        self,
        form: Form,
        back: Sequence[int],
        kept: Sequence[int] | None,
        context: int,
        x: Float[mx.array, "1 1 D"],
        new: Integer[mx.array, " 1"],
        slots: list[Integer[mx.array, " _"]],
        queries: Float[mx.array, "1 H 1 D_h"],
        scored: list[mx.array],
        protected: Bool[mx.array, " P"],
        behind: list[mx.array],
    ) -> tuple[Float[mx.array, "1 1 D"], list[mx.array]]:
        """A decode step within the budget from the first cut on: a pure function of arrays.

        Args:
            form: of the conversation.
            back: tokens that come back at each cut.
            kept: tokens that attention is limited to behind each cut; None if it goes to all that are computed there.
            context: positions that there may be.
            x, new: the new token's row, and its position.
            slots: for the rows of each stage.
            queries, scored: of the layer that scores at the first cut: the new token's, and all keys with their
                positions.
            behind: the conversation behind the first cut.

        Returns:
            The row as it leaves the last stage, and the conversation behind the first cut.
        """
        cache = LazyCache.of(form, behind)
        first, arrays = cache.stages[0], iter(scored)  # of which nothing else is known here
        self._scoring(cache, 0)[1].fill(arrays)
        first.positions = next(arrays)
        first.open()
        within, logits, moved = None, None, []
        for number, n in enumerate(back, 1):
            importance = self._importance(cache, number, new, queries, within, logits)
            stage, depth, pool = cache.stages[number], cache.aux.depth, form.config.pool
            active = depth >= number if within is None else within
            rows, positions = x, new
            if n:
                best = best_waiting(importance, active, protected, depth == number, n, pool)
                revived, came_from = cache.aux.take(best, number, *moved[-1:])
                rows, positions = mx.concatenate([x, revived], axis=1), mx.concatenate([new, best])
            if kept is not None:
                selected = select(importance, active, protected, kept[number - 1], pool)
                within = active & (selected | (depth == number)) & (cache.aux.depth > number)
            span = stage.put(positions, slots[number - 1], context)
            rows, asking = self._run(cache, number, rows, positions, stage.visible(positions, within), span, within)
            x, queries = rows[:, :1], asking.queries[:, :, :1]
            logits = None if asking.logits is None else asking.logits[:, :, :1]
            if n and number < len(back):
                moved.append(Moved(came_from, rows[:, 1:]))
        for each in moved:  # only now: a buffer that was read from is copied before it is written to
            cache.aux.put_back(*each)
        return x, cache.behind

    def _exactly(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array) -> mx.array:
        """A prompt, or a decode step that revives all that was selected: as many rows as it takes.

        How many that are follows from the schedule where a stage is still empty; else the device is asked, once a cut.
        """
        config, first = cache.config, cache.turn_start == 0 and not any(stage.filled for stage in cache.stages[1:])
        asking = mx.arange(step.stop - step.window, step.stop, dtype=mx.int32)
        safe = cache.protected(step)
        protected, active, within = mask_of(safe, cache.aux.places), cache.aux.depth > 0, None
        n_active, n_protected, kept = step.stop, sum(b - a for a, b in safe), []
        for number, cut in enumerate(config.cuts, 1):
            stage, selected = cache.stages[number], active
            k = self._how_many(cache, cut, step, n_active - n_protected, n_protected)
            if k < n_active - n_protected:
                importance = self._importance(cache, number, asking, queries, within)
                if number == 1 and cache.prompt_queries.parts and not step.decode:
                    importance = self._with_links(cache, importance, active & ~protected)
                selected = select(importance, active, protected, k, config.pool)
            n_active = k + n_protected
            positions = self._missing(cache, number, step, selected, n_active if first else None)
            n_missing = positions.shape[0]
            rows, slots = cache.aux.take(positions, number) if n_missing else (x[:, :0], None)
            active = selected & (cache.aux.depth > number)
            if config.revive == 0 and not first:
                n_active, n_protected = on_host(active, active & protected)
            if step.decode:
                rows, positions = mx.concatenate([rows, x], axis=1), mx.concatenate([positions, asking])
            some = config.attend == "selected" and n_active < stage.filled + positions.shape[0]
            within = active if some else None
            newest = first or n_missing == 0
            rows, queries = self._run_rising(cache, number, step, rows, positions, within, newest)
            if slots is not None and number < len(config.cuts):
                cache.aux.put_back(slots, rows[:, :n_missing])
            x = rows[:, -1:]
            kept.append(n_active)
        if not step.decode:
            cache.kept = tuple(kept)
            cache.aux.compact()
        return x

    def _missing(
        self, cache: LazyCache, number: int, step: Step, selected: Bool[mx.array, " P"], count: int | None
    ) -> Integer[mx.array, " M"]:
        """Selected tokens that wait at cut `number`, in the order of the conversation, and count those that come back.

        Args:
            count: how many they are, if that is known: none of them were there before then.
        """
        came = step.start if step.decode else cache.turn_start  # what is earlier was there before this prompt or token
        place = mx.arange(cache.aux.places)
        missing = selected & (cache.aux.depth == number)
        if cache.config.revive == 0:
            missing = missing & (place >= came)
        if count is None:
            count, old = on_host(missing, missing & (place < came))
            cache.revived += old
        return mx.sort(mx.where(missing, place, cache.aux.places))[:count]

    def _how_many(self, cache: LazyCache, cut: Cut, step: Step, candidates: int, protected: int) -> int:
        """Candidates that a cut lets through; in prefill such that all rows are a multiple of `round_to`."""
        beyond_sight = self.sight is not None and step.stop > self.sight and not step.decode
        if cache.keeps_all or beyond_sight or step.stop < cache.config.min_tokens:
            return candidates
        k = cut.count(step.stop)
        if not step.decode:
            k += -(k + protected) % cache.config.round_to
        return min(k, candidates)


def on_host(*masks: Bool[mx.array, " P"]) -> list[int]:
    """Learn how many positions are in each mask: the one place where an exact step waits for the device."""
    return np.array(mx.stack([mask.sum() for mask in masks])).tolist()
