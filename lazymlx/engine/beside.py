"""Rows through a stage beside tokens that were left behind: these are seen by their filled keys and values.

Layer by layer, and in each of them part by part, so that what is filled is made once a layer and dropped behind it. A
part looks only at the filled tokens that are no later than its last row.
"""

from copy import copy

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import causal
from ..cache.stage import Span, StageCache
from ..nn.loop import Others, View, run_layers
from ..nn.network import Network
from ..nn.windows import scoring_layer
from .lookahead import FilledTokens
from .stages import last_rows, parts_of

ROUNDED = 256  # filled tokens that a part may see, up to a multiple: the shapes of few parts differ


def run_beside(
    model: Network,
    cache: LazyCache,
    number: int,
    step: Step,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    filled: FilledTokens,
) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
    """Run rows at rising positions through a stage, see `stages.run_rising`.

    Waits for the device once, to learn which filled tokens each part may see.
    """
    stage, (start, stop), L = cache.stages[number], cache.layers_of(number), x.shape[1]
    parts = parts_of(L, step.rows_at_a_time)
    spans = [stage.append(positions[part], step.stop, ahead=L - part.stop) for part in parts]
    earlier = _earlier(filled, np.array(positions)[[part.stop - 1 for part in parts]])
    outs, queries, before = [x[:, part] for part in parts], None, None
    scoring = scoring_layer(model.windows, start, stop)
    for layer in range(start, stop):
        one, made, last = slice(layer, layer + 1), filled.of(layer), layer == len(model.layers) - 1
        for n, (part, span, counts) in enumerate(zip(parts, spans, earlier, strict=True)):
            alone = _of_one_layer(stage, layer - start, span.stop)
            view = _view(positions[part], alone, span, filled, counts, made)
            outs[n], rows = run_layers(
                model.layers[one], model.windows[one], outs[n], view, alone, returned=(0,), last_only=last
            )
            mx.async_eval(outs[n])
            if layer == scoring:
                queries = last_rows(queries, rows[0].queries, step.window)
        if before is not None:
            mx.eval(before)
        before = outs[-1]
        step.report(number, L * (layer - start + 1) // (stop - start), L)
    assert queries is not None
    return mx.concatenate(outs, axis=1), queries


def _earlier(filled: FilledTokens, last: np.ndarray) -> list[list[int]]:
    """For each part, by the position of its last row, how many of the tokens that wait at each cut it may see."""
    waiting = [np.array(positions) for positions in filled.positions]
    counts = [np.searchsorted(each, last, side="right") for each in waiting]
    rounded = [
        np.minimum(-(-found // ROUNDED) * ROUNDED, len(each)) for found, each in zip(counts, waiting, strict=True)
    ]
    return np.stack(rounded, axis=1).tolist()


def _view(
    at: mx.array,
    stage: StageCache,
    span: Span,
    filled: FilledTokens,
    counts: list[int],
    made: list[tuple[mx.array, mx.array]],
) -> View:
    seen = mx.concatenate([positions[:count] for positions, count in zip(filled.positions, counts, strict=True)])
    parts = [(keys[:, :, :n], values[:, :, :n]) for (keys, values), n in zip(made, counts, strict=True)]
    mask = mx.concatenate([causal(at, seen), stage.visible(at, None)], axis=1)
    return View(at, mask, span, others=Others(seen, lambda _: parts))


def _of_one_layer(stage: StageCache, index: int, filled: int) -> StageCache:
    """The stage as if it had one layer, and so many slots in use."""
    alone = copy(stage)
    alone.layers, alone.filled = [stage.layers[index]], filled
    return alone
