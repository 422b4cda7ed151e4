"""Layers between cuts: any rows through a stage, and the scores of its tokens."""

from collections import deque

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import Mask, causal
from ..cache.rows import Store, unpacked
from ..cache.stage import Span
from ..errors import UsageError
from ..nn.attention import Attention, Rows, last_output
from ..nn.network import Network
from ..nn.rope import Positions
from ..nn.windows import scoring_layer
from .links import by_token, most, query_store, widely, with_links
from .selection import AttentionScorer, attention

IN_HAND = 8192  # rows of layers of a prompt that the device may have before it: they are the peak of its memory


class Staged(Network):
    """A network whose layers can be run stage by stage, over the pools of a conversation."""

    def _run(
        self,
        cache: LazyCache,
        number: int,
        x: mx.array,
        positions: Positions,
        mask: Mask,
        span: Span,
        within: Bool[mx.array, " P"] | None = None,
        answering: bool = False,
        at_once: bool = False,
    ) -> tuple[mx.array, Rows]:
        """Run rows through the layers of a stage.

        Args:
            mask: which slots the rows may see where a layer sees everything; `within` says it for the other layers.
            answering: of the model's last layer, only the last row's output is wanted.
            at_once: let the device begin with a layer while the next one is prepared, up to `IN_HAND`.

        Returns:
            The stage's outputs, and the rows as they went through the layer that scores at the next cut.
        """
        stage, (start, stop) = cache.stages[number], cache.layers_of(number)
        windows, asking, begun = self.windows, None, deque[mx.array]()
        scoring = scoring_layer(windows, start, stop)
        views: dict[int | None, tuple[int, Mask]] = {None: (0, mask)}
        if at_once:
            mx.async_eval(x)
        for index, pool in zip(range(start, stop), stage.pools, strict=True):
            window = windows[index]
            if window is not None and window not in views:
                at = positions if isinstance(positions, mx.array) else mx.arange(positions, positions + x.shape[1])
                views[window] = views[None] if span.context <= window else stage.through(window, at, within)
            first, mask = views[window]
            rows = Rows(positions, pool, span, first)
            if answering and index == len(self.layers) - 1 and x.shape[1] > 1:
                return last_output(self.layers[index], x, mask, rows)
            x = self.layers[index](x, mask=mask, cache=rows)
            asking = rows if index == scoring else asking
            if at_once:
                mx.async_eval(x)
                begun.append(x)
                if len(begun) > max(IN_HAND // x.shape[1], 2):
                    mx.eval(begun.popleft())
        assert asking is not None
        return x, asking

    def _importance(
        self,
        cache: LazyCache,
        number: int,
        asking: Integer[mx.array, " W"],
        queries: Float[mx.array, "1 H W D_h"],
        within: Bool[mx.array, " P"] | None,
        logits: Float[mx.array, "1 H W S"] | None = None,
    ) -> Float[mx.array, " P"]:
        """Score the tokens of the stage before cut `number`, for the tokens that ask.

        Args:
            logits: of their attention, scaled and hidden, if they are at hand.
        """
        stage, config = cache.stages[number - 1], cache.config
        layer, stored = self._scoring(cache, number - 1)
        default = AttentionScorer(config.reduce, layer.softcap, layer.sinks)
        if logits is not None and config.scorer is None:
            return stage.by_position(default.of(logits.squeeze(0)), cache.aux.places)
        keys = unpacked(stored.read(0, stage.filled)).squeeze(0)
        in_sight = layer.window is None or cache.offset <= layer.window
        all_visible = len(asking) == 1 and not stage.gaps and within is None and in_sight
        visible = None if all_visible else stage.visible(asking, within, layer.window)
        importance = (config.scorer or default)(queries.squeeze(0) * layer.scale, keys, visible)
        if importance.shape != keys.shape[1:2]:
            raise UsageError(f"scorer: expected an importance for each of {keys.shape[1]} keys, got {importance.shape}")
        return stage.by_position(importance, cache.aux.places)

    def _scoring(self, cache: LazyCache, number: int) -> tuple[Attention, Store]:
        """The attention that scores the tokens of a stage, and its keys in the stage's slots."""
        start, stop = cache.layers_of(number)
        layer = scoring_layer(self.windows, start, stop)
        return self.family.attention_of(self.layers[layer]), cache.stages[number].pools[layer - start].keys

    def _note_queries(self, cache: LazyCache, step: Step, queries: Float[mx.array, "1 H L D_h"]) -> None:
        """Keep the queries of a prompt's tokens, where the most important ones will be asked in turn."""
        if not cache.config.links or cache.config.scorer is not None:
            return
        rows = by_token(queries)
        if not cache.prompt_queries.parts:
            cache.prompt_queries = query_store(rows.shape[-1])
        cache.prompt_queries.write(rows, step.start, step.stop + cache.expected)
        mx.async_eval(cache.prompt_queries.parts)

    def _with_links(
        self, cache: LazyCache, importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"]
    ) -> Float[mx.array, " P"]:
        """Importance at the first cut of a prompt, once its most important tokens were asked in turn."""
        config, (layer, stored) = cache.config, self._scoring(cache, 0)
        keys = unpacked(stored.read(0, cache.stages[0].filled)).squeeze(0)
        wide = widely(importance, candidates, config.pool)
        at = most(wide, candidates, config.links)
        rows = cache.prompt_queries.at(mx.minimum(at, cache.prompt_queries.capacity - 1))
        queries = rows.reshape(len(rows), layer.heads, -1).swapaxes(0, 1) * layer.scale
        visible = causal(at, mx.arange(keys.shape[1]), layer.window)
        paid = attention(queries, keys, visible, layer.softcap, layer.sinks).mean(axis=0)
        paid = mx.pad(paid, [(0, 0), (0, len(importance) - paid.shape[1])])
        weights = mx.where(candidates[at], wide[at], 0.0)
        return with_links(importance, candidates, at, weights, paid, config.pool // 2)

    def _run_rising(
        self,
        cache: LazyCache,
        number: int,
        step: Step,
        x: Float[mx.array, "1 L D"],
        positions: Integer[mx.array, " L"],
        within: Bool[mx.array, " P"] | None,
        newest: bool,
    ) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
        """Run rows at rising positions through a stage, in equal parts of at most `step_size` of them.

        Returns its outputs (in the last stage only the last one of each part), and the newest queries.

        Args:
            within: the positions to attend to; None if that is all that the stage holds.
            newest: no row is earlier than one that the stage holds, so that position in the pool orders them all.
        """
        stage, L, outs, queries = cache.stages[number], x.shape[1], [], None
        part, answering = -(-L // -(-L // cache.step_size)), number == len(cache.config.cuts)
        for start in range(0, L, part):
            chunk = slice(start, min(start + part, L))
            span = stage.append(positions[chunk], step.stop, ahead=L - chunk.stop)
            mask: Mask = "causal" if chunk.stop - start > 1 else None
            if within is not None or not newest:
                mask = stage.visible(positions[chunk], within)
            rows, at = x[:, chunk], positions[chunk]
            out, asking = self._run(cache, number, rows, at, mask, span, within, answering, at_once=True)
            # the device works while the next chunk is prepared, but never has more than two of them in hand
            mx.async_eval(out)
            if outs:
                mx.eval(outs[-1])
                self._report(cache, step, number, start, L)
            outs.append(out)
            queries = last_rows(queries, asking.queries, step.window)
        assert queries is not None
        return mx.concatenate(outs, axis=1), queries

    def _report(self, cache: LazyCache, step: Step, number: int, done: int, L: int) -> None:
        if cache.on_rows is not None and not step.decode:
            cache.on_rows(number, done, L)


def last_rows(
    before: Float[mx.array, "1 H W D_h"] | None, queries: Float[mx.array, "1 H L D_h"], window: int
) -> Float[mx.array, "1 H T D_h"]:
    """The newest `window` queries of two runs of them."""
    if before is not None and queries.shape[2] < window:
        queries = mx.concatenate([before, queries], axis=2)
    return queries[:, :, -window:]
