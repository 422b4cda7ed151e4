"""A prompt's rows through a stage where tokens were left behind: the question sees these, by their filled keys.

The rows that looked ahead are few, and are where an answer begins. Those before them see what was computed alone: a
mask over filled keys would cost them as much again as their attention.
"""

import mlx.core as mx
from jaxtyping import Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import causal
from ..nn.loop import Others, View
from ..nn.network import Network
from .lookahead import FilledTokens, looking_rows
from .stages import Seen, run_rising, run_stage


def run_beside(
    model: Network,
    cache: LazyCache,
    number: int,
    step: Step,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    seen: Seen,
    filled: FilledTokens,
) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
    """Run rows at rising positions through a stage, see `stages.run_rising`.

    The last ones, those that looked ahead, see filled keys.
    """
    question, outs = looking_rows(cache, step), []
    document = x.shape[1] - question
    if document:
        out, _ = run_rising(model, cache, number, step, x[:, :document], positions[:document], seen, question)
        outs.append(out)
    out, queries = _question(model, cache, number, step, x[:, document:], positions[document:], filled)
    return mx.concatenate([*outs, out], axis=1), queries


def _question(
    model: Network,
    cache: LazyCache,
    number: int,
    step: Step,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    filled: FilledTokens,
) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
    """In split products: fused attention is planned anew for each number of filled tokens."""
    stage, before, (start, _) = cache.stages[number], mx.concatenate(filled.positions), cache.layers_of(number)
    span = stage.append(positions, step.stop)
    mask = mx.concatenate([causal(positions, before), stage.visible(positions, None)], axis=1)
    others = Others(before, lambda index: filled.of(start + index))
    view = View(positions, mask, span, others=others, wanted=True)
    last_only = number == len(cache.config.cuts)
    out, scoring = run_stage(model, cache, number, x, view, last_only=last_only, at_once=lambda _: None)
    return out, scoring.queries[:, :, -step.window :]
