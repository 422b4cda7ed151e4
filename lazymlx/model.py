"""The staged model: Llama's layers between cuts, and the one operation that serves them all.

Prefill, decode and a follow-up question are the same `advance`: new tokens run through stage 0; at each cut the
tokens of the stage are scored and selected, the selected ones that were not computed behind the cut yet are taken out
of the aux cache, run, and the last token's row goes to the head (LazyLLM sec 3.2). It comes in two kinds of
bookkeeping: exact, which learns from the device which tokens were selected, and within a budget, whose shapes are
fixed, so that a decode step never waits.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float, Integer
from mlx_lm.models.llama import ModelArgs

from .aux_cache import Taken
from .cache import LazyCache, Step
from .config import Cut, LazyConfig
from .errors import StateError
from .layers import Block, Mask
from .pools import Span, StageCache
from .selection import AttentionScorer, select


class LlamaModel(nn.Module):
    """The weights, under upstream's names; how they are run is `Model`'s affair."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)


class Model(nn.Module):
    """A causal language model that can be lazy. Without a cache it is the plain dense model."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = LlamaModel(args)
        self.lazy = LazyConfig()
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def make_cache(self, lazy: LazyConfig | None = None) -> list[LazyCache]:
        """An empty conversation, as mlx-lm's loops want it: a list, here with a single entry for all layers."""
        return [LazyCache((lazy or self.lazy).resolve(len(self.layers)), len(self.layers))]

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Drop tensors of a checkpoint that are derived from others."""
        tied = "lm_head.weight" if self.args.tie_word_embeddings else None
        return {k: w for k, w in weights.items() if "rotary_emb.inv_freq" not in k and k != tied}

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
        x = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        if cache is None:
            return self._head(self._dense(x))
        if x.shape[0] != 1:
            raise StateError(f"a lazy cache holds one conversation, got a batch of {x.shape[0]}")
        return self.advance(x, cache[0])

    def _dense(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L D"]:
        mask: Mask = "causal" if x.shape[1] > 1 else None
        for layer in self.layers:
            x, _ = layer(x, 0, mask, None, Span(context=x.shape[1]))
        return x

    def _head(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L V"]:
        x = self.model.norm(x)
        return self.model.embed_tokens.as_linear(x) if self.args.tie_word_embeddings else self.lm_head(x)

    def advance(self, x: Float[mx.array, "1 L D"], cache: LazyCache) -> Float[mx.array, "1 T V"] | None:
        """Take the embeddings of new tokens into the conversation."""
        if cache.holds_back(x.shape[1]):
            cache.held = x
            return None
        told = cache.expected > 0
        if cache.held is not None:
            x, cache.held = mx.concatenate([cache.held, x], axis=1), None
        step = cache.begin(x.shape[1])
        x, queries = self._first_stage(cache, step, x)
        if not cache.config.cuts:
            return self._head(x[:, -1:] if told else x) if step.final or not told else None
        if step.decode:
            cache.aux.pass_by(step.start, len(cache.stages))
        else:
            cache.aux.append(x, step.start, ahead=cache.expected)
            queries = cache.queries = last_rows(cache.queries, queries, cache.config.window)
        if not step.final:
            return None
        return self._head(self._deepen(cache, step, x[:, -1:], queries[:, :, -step.window :]))

    def _first_stage(self, cache: LazyCache, step: Step, x: mx.array) -> tuple[mx.array, mx.array]:
        stage, positions = cache.stages[0], mx.arange(step.start, step.stop, dtype=mx.int32)
        bounds = (step.start, step.stop - 1)
        span = stage.append(positions, step.stop, bounds=bounds, ahead=cache.expected)
        return self._run(cache, 0, x, step.start, "causal" if x.shape[1] > 1 else None, span)

    def _run(
        self, cache: LazyCache, number: int, x: mx.array, positions: int | mx.array, mask: Mask, span: Span
    ) -> tuple[mx.array, mx.array]:
        """Run rows through the layers of a stage. Returns its outputs, and the queries of its last layer."""
        pools = cache.stages[number].pools
        start = sum(len(stage.pools) for stage in cache.stages[:number])
        for layer, pool in zip(self.layers[start : start + len(pools)], pools, strict=True):
            x, queries = layer(x, positions, mask, pool, span)
        return x, queries

    def _deepen(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array) -> mx.array:
        """From the outputs of stage 0 to the last token's output of the last stage, `(1, 1, D)`."""
        config = cache.config
        if step.decode and config.attend == "computed" and (config.revive == 0 or cache.waiting == 0):
            return self._pass_through(cache, step, x)
        if step.decode and config.revive is not None:
            return self._within_budget(cache, step, x, queries, config.revive)
        return self._exactly(cache, step, x, queries)

    def _pass_through(self, cache: LazyCache, step: Step, x: mx.array) -> mx.array:
        """Decode with nothing to revive: the new token alone."""
        position = mx.array([step.start], mx.int32)
        for number in range(1, len(cache.stages)):
            stage = cache.stages[number]
            span = stage.append(position, step.stop, bounds=(step.start, step.start))
            mask = None if stage.count is None else stage.visible(position, None)
            x, _ = self._run(cache, number, x, position, mask, span)
        return x

    def _within_budget(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array, budget: int) -> mx.array:
        """Decode: the new token, and at each cut the best `budget` of the tokens that wait there."""
        active, within = mx.ones((step.stop,), mx.bool_), None
        protected = mx.array(cache.protected(step))
        new = mx.array([step.start], mx.int32)
        for number, cut in enumerate(cache.config.cuts, 1):
            k = cut.count(step.stop) if step.stop >= cache.config.min_tokens else step.stop
            selected, keys = self._select(cache, number, new, queries[:, :, :1], active, within, protected, k)
            taken = cache.aux.take_best(keys, number, budget)
            active = selected & (cache.aux.depth[: step.stop] > number)
            within = active if cache.config.attend == "selected" else None
            positions = mx.concatenate([new, taken.positions])
            stage = cache.stages[number]
            span = stage.append(positions, step.stop, bounds=None, valid=taken.valid + 1)
            rows = mx.concatenate([x, taken.x], axis=1)
            rows, queries = self._run(cache, number, rows, positions, stage.visible(positions, within), span)
            x = rows[:, :1]
            if number < len(cache.config.cuts):
                cache.aux.put_back(taken.slots, rows[:, 1:])
            cache.revived = cache.revived + taken.valid
        return x

    def _exactly(self, cache: LazyCache, step: Step, x: mx.array, queries: mx.array) -> mx.array:
        """A prompt, or a decode step that revives all that was selected: as many rows as it takes."""
        config, cuts = cache.config, cache.config.cuts
        for stage in cache.stages:
            stage.settle()
        depth = np.array(cache.aux.depth[: step.stop])
        protected, active, within = cache.protected(step), np.ones(step.stop, bool), None
        asking = mx.arange(step.stop - step.window, step.stop, dtype=mx.int32)
        kept = []
        for number, cut in enumerate(cuts, 1):
            k = self._how_many(config, cut, step, active, protected)
            selected = active
            if k < (active & ~protected).sum():
                chosen, _ = self._select(
                    cache, number, asking, queries, mx.array(active), within, mx.array(protected), k
                )
                selected = on_host(chosen, x)
            missing = selected & (depth == number)
            if config.revive == 0:
                missing[: cache.turn_start] = False
            cache.revived = cache.revived + int(missing[: cache.turn_start if not step.decode else None].sum())
            depth[missing] += 1
            active = selected & (depth > number)
            within = self._within(cache.stages[number], active, missing, step) if config.attend == "selected" else None
            taken = cache.aux.take(np.flatnonzero(missing), number)
            rows, queries = self._run_taken(cache, number, step, taken, x if step.decode else None, within)
            if number < len(cuts):
                cache.aux.put_back(taken.slots, rows[:, : len(taken.positions)])
            x = rows[:, -1:]
            kept.append(int(active.sum()))
        if not step.decode:
            cache.kept = tuple(kept)
            cache.waiting = cache.aux.compact(step.stop, len(cache.stages))
        return x

    def _how_many(self, config: LazyConfig, cut: Cut, step: Step, active: np.ndarray, protected: np.ndarray) -> int:
        """Candidates that a cut lets through; in prefill a multiple of `round_to` rows in all."""
        candidates = int((active & ~protected).sum())
        if step.stop < config.min_tokens:
            return candidates
        k = cut.count(step.stop)
        if not step.decode:
            k += -(k + int((active & protected).sum())) % config.round_to
        return min(k, candidates)

    def _within(self, stage: StageCache, active: np.ndarray, missing: np.ndarray, step: Step) -> mx.array | None:
        """The tokens to attend to where that is the selected ones; None if all that the stage holds are selected."""
        holds = stage.filled + int(missing.sum()) + step.decode
        return None if int(active.sum()) == holds else mx.array(active)

    def _select(self, cache, number, asking, queries, active, within, protected, k):
        """Score the tokens of the stage before cut `number`, and choose."""
        stage, config = cache.stages[number - 1], cache.config
        scorer = config.scorer or AttentionScorer(config.reduce)
        last = self.layers[config.cuts[number - 1].layer - 1]
        all_visible = len(asking) == 1 and stage.count is None and within is None
        visible = None if all_visible else stage.visible(asking, within)
        keys = stage.pools[-1].keys[0, :, : stage.filled]
        importance = scorer(queries[0] * last.self_attn.scale, keys, visible)
        return select(stage.by_position(importance, cache.offset), active, protected, k, config.pool)

    def _run_taken(
        self,
        cache: LazyCache,
        number: int,
        step: Step,
        taken: Taken,
        new: mx.array | None,
        within: mx.array | None,
    ) -> tuple[mx.array, mx.array]:
        """Run rows at rising positions through a stage, the new token last, `step_size` of them at a time."""
        stage, x, positions = cache.stages[number], taken.x, taken.positions
        order = np.array(positions)
        if new is not None:
            order = np.append(order, step.start)
            x, positions = mx.concatenate([x, new], axis=1), mx.array(order.astype(np.int32))
        outs, queries = [], None
        for start in range(0, len(order), cache.step_size):
            chunk = slice(start, start + cache.step_size)
            rows = order[chunk]
            bounds, ahead = (int(rows[0]), int(rows[-1])), len(order) - start - len(rows)
            newest = bounds[0] > stage.highest  # then every slot is visible to every row, whatever their order
            span = stage.append(positions[chunk], step.stop, bounds=bounds, ahead=ahead)
            mask: Mask = "causal" if len(rows) > 1 else None
            if within is not None or not newest:
                mask = stage.visible(positions[chunk], within)
            out, q = self._run(cache, number, x[:, chunk], positions[chunk], mask, span)
            mx.eval(out)  # chunk by chunk, so that memory is bounded by a chunk's intermediates
            outs.append(out)
            queries = last_rows(queries, q, step.window)
        return mx.concatenate(outs, axis=1), queries


def on_host(selected: mx.array, *others: mx.array) -> np.ndarray:
    """Learn what was selected: the one place where an exact step waits for the device."""
    mx.eval(selected, *others)
    return np.array(selected)


def last_rows(
    before: Float[mx.array, "1 H W D_h"] | None, queries: Float[mx.array, "1 H L D_h"], window: int
) -> Float[mx.array, "1 H T D_h"]:
    """The newest `window` queries of two runs of them."""
    if before is not None and queries.shape[2] < window:
        queries = mx.concatenate([before, queries], axis=2)
    return queries[:, :, -window:]
