"""Rows through a stage: all at once, or a prompt's in parts."""

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import Mask, causal
from ..cache.stage import Span
from ..nn.attention import Rows
from ..nn.loop import Others, run_layers
from ..nn.network import Network
from ..nn.rope import Positions
from ..nn.windows import scoring_layer


def run_stage(
    model: Network,
    cache: LazyCache,
    number: int,
    x: Float[mx.array, "1 L D"],
    positions: Positions,
    mask: Mask,
    span: Span,
    *,
    others: Others | None = None,
    within: Bool[mx.array, " P"] | None = None,
    last_only: bool = False,
    at_once: bool = False,
) -> tuple[Float[mx.array, "1 T D"], Rows]:
    """Run rows through the layers of a stage, see `run_layers`.

    Returns:
        The stage's outputs, and the rows as they went through the layer that scores at the next cut.
    """
    start, stop = cache.layers_of(number)
    asking = scoring_layer(model.windows, start, stop) - start
    x, heard = run_layers(
        model.layers[start:stop],
        model.windows[start:stop],
        x,
        positions,
        mask,
        span,
        cache.stages[number],
        others=others,
        within=within,
        heard=(asking,),
        last_only=last_only,
        at_once=at_once,
    )
    return x, heard[asking]


def run_rising(
    model: Network,
    cache: LazyCache,
    number: int,
    step: Step,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    within: Bool[mx.array, " P"] | None,
    newest: bool,
    others: Others | None = None,
) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
    """Run rows at rising positions through a stage, in equal parts of at most `step.rows_at_a_time`.

    Returns its outputs (in the last stage only the last one of each part), and the newest queries.

    Args:
        within: the positions to attend to; None if that is all that the stage holds.
        newest: no row is earlier than one that the stage holds, so that position in the pool orders them all.
        others: that the rows may see as well.
    """
    stage, L, outs, queries = cache.stages[number], x.shape[1], [], None
    part, last_only = -(-L // -(-L // step.rows_at_a_time)), number == len(cache.config.cuts)
    for start in range(0, L, part):
        chunk = slice(start, min(start + part, L))
        span = stage.append(positions[chunk], step.stop, ahead=L - chunk.stop)
        mask: Mask = "causal" if chunk.stop - start > 1 else None
        if others is not None:
            own = stage.visible(positions[chunk], within)
            mask = mx.concatenate([causal(positions[chunk], others.positions), own], axis=1)
        elif within is not None or not newest:
            mask = stage.visible(positions[chunk], within)
        rows, at = x[:, chunk], positions[chunk]
        out, asking = run_stage(
            model, cache, number, rows, at, mask, span, others=others, within=within, last_only=last_only, at_once=True
        )
        # the device works while the next chunk is prepared, but never has more than two of them in hand
        mx.async_eval(out)
        if outs:
            mx.eval(outs[-1])
            step.report(number, start, L)
        outs.append(out)
        queries = last_rows(queries, asking.queries, step.window)
    assert queries is not None
    return mx.concatenate(outs, axis=1), queries


def last_rows(
    before: Float[mx.array, "1 H W D_h"] | None, queries: Float[mx.array, "1 H L D_h"], window: int
) -> Float[mx.array, "1 H T D_h"]:
    """The newest `window` queries of two runs of them."""
    if before is not None and queries.shape[2] < window:
        queries = mx.concatenate([before, queries], axis=2)
    return queries[:, :, -window:]
