"""Importance at a cut: what the layer before it attends to, seen from the tokens that ask."""

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import causal
from ..cache.rows import RowBuffer, unpacked
from ..config import Reduce
from ..errors import UsageError
from ..nn.attention import Attention
from ..nn.network import Network
from ..nn.windows import scoring_layer
from .links import by_token, most, query_buffer, widely, with_links
from .selection import AttentionScorer, attention


def scoring_of(model: Network, cache: LazyCache, number: int) -> tuple[Attention, RowBuffer]:
    """The attention that scores the tokens of a stage, and its keys in the stage's slots."""
    start, stop = cache.layers_of(number)
    layer = scoring_layer(model.windows, start, stop)
    return model.family.attention_of(model.layers[layer]), cache.stages[number].layers[layer - start].keys


def importance_at(
    model: Network,
    cache: LazyCache,
    number: int,
    asking: Integer[mx.array, " W"],
    queries: Float[mx.array, "1 H W D_h"],
    within: Bool[mx.array, " P"] | None,
    logits: Float[mx.array, "1 H W S"] | None = None,
) -> Float[mx.array, " P"]:
    """Score the tokens of the stage before cut `number`, for the tokens at the positions `asking` (LazyLLM eq. 1).

    Args:
        logits: of their attention, scaled and hidden, if they are at hand.
    """
    stage, config = cache.stages[number - 1], cache.config
    layer, stored = scoring_of(model, cache, number - 1)
    default = AttentionScorer(config.reduce, layer.softcap, layer.sinks)
    if logits is not None and config.scorer is None:
        return stage.by_position(over_ranks(model, default.of(logits.squeeze(0)), config.reduce), cache.aux.places)
    keys = unpacked(stored.read(0, stage.filled)).squeeze(0)
    in_sight = layer.window is None or cache.offset <= layer.window
    all_visible = len(asking) == 1 and not stage.gaps and within is None and in_sight
    visible = None if all_visible else stage.visible(asking, within, layer.window)
    importance = (config.scorer or default)(queries.squeeze(0) * layer.scale, keys, visible)
    if importance.shape != keys.shape[1:2]:
        raise UsageError(f"scorer: expected an importance for each of {keys.shape[1]} keys, got {importance.shape}")
    reduce = config.reduce if config.scorer is None else "mean"
    return stage.by_position(over_ranks(model, importance, reduce), cache.aux.places)


def over_ranks(model: Network, of_heads: Float[mx.array, "*F S"], reduce: Reduce) -> Float[mx.array, "*F S"]:
    """What all heads say, from what this rank's do: bit by bit the same on every rank, so that all select alike."""
    return model.ranks.highest(of_heads) if reduce == "max" else model.ranks.mean(of_heads)


def asks_in_turn(cache: LazyCache) -> bool:
    """Whether the most important tokens of a prompt are asked themselves."""
    return cache.config.links > 0 and cache.config.scorer is None


def note_queries(cache: LazyCache, step: Step, queries: Float[mx.array, "1 H L D_h"]) -> None:
    """Keep the queries of a prompt's tokens, where the most important ones will be asked in turn."""
    if not asks_in_turn(cache):
        return
    rows = by_token(queries)
    if not cache.prompt_queries.parts:
        cache.prompt_queries = query_buffer(rows.shape[-1])
    cache.prompt_queries.write(rows, step.start, step.stop + cache.expected)
    mx.async_eval(cache.prompt_queries.parts)


def add_links(
    model: Network, cache: LazyCache, importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"]
) -> Float[mx.array, " P"]:
    """Importance at the first cut of a prompt, once its most important tokens were asked in turn."""
    config, (layer, stored) = cache.config, scoring_of(model, cache, 0)
    keys = unpacked(stored.read(0, cache.stages[0].filled)).squeeze(0)
    wide = widely(importance, candidates, config.pool)
    at = most(wide, candidates, config.links)
    rows = cache.prompt_queries.at(mx.minimum(at, cache.prompt_queries.capacity - 1))
    queries = rows.reshape(len(rows), layer.heads, -1).swapaxes(0, 1) * layer.scale
    visible = causal(at, mx.arange(keys.shape[1]), layer.window)
    paid = attention(queries, keys, visible, layer.softcap, layer.sinks).mean(axis=0)
    paid = over_ranks(model, paid, "mean")
    paid = mx.pad(paid, [(0, 0), (0, len(importance) - paid.shape[1])])
    weights = mx.where(candidates[at], wide[at], 0.0)
    return with_links(importance, candidates, at, weights, paid, config.pool // 2)
