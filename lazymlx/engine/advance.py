"""The one operation. Prefill, decode and a follow-up question are the same `advance` (LazyLLM sec 3.2):

1. run: the new tokens go through stage 0; their keys and values are appended;
2. leave: the rows that reached the first cut wait in the aux cache;
and once the last token is in, at each cut (`cuts.py`):
3. score, 4. select, 5. come back, 6. go on, until the last token's row leaves the last stage for the head.
"""

from dataclasses import dataclass

import mlx.core as mx
from jaxtyping import Float

from ..cache.conversation import LazyCache, Step
from ..cache.masks import Mask
from ..nn.attend import FEW_ROWS
from ..nn.attention import Rows
from ..nn.compiling import Replay
from ..nn.loop import View
from ..nn.maps import Maps
from ..nn.network import Network
from .cuts import alone, budgeted, exactly
from .recall import recalling, recalls, rests
from .scoring import note_queries
from .stages import last_rows, run_stage


@dataclass(frozen=True)
class Advanced:
    """What new tokens come to.

    Attributes:
        x: last stage's outputs of the tokens whose logits are wanted, `(1, T, D)`; None if the prompt is not complete.
        begun: a value of the outputs of stage 0: once it is there, the chunk has been read.
    """

    x: Float[mx.array, "1 T D"] | None
    begun: mx.array


@dataclass(frozen=True)
class Engine:
    """What the operation needs beside the network.

    Attributes:
        replay: of the decode steps that revive.
        resting: of those between them, where answers see filled keys.
        stretched: rotations depend on the length of the context.
        maps: to look ahead with, if there are any.
    """

    replay: Replay
    resting: Replay
    stretched: bool
    maps: Maps | None = None


def advance(model: Network, engine: Engine, cache: LazyCache, step: Step, x: Float[mx.array, "1 L D"]) -> Advanced:
    """Take the embeddings of new tokens into the conversation.

    Args:
        step: what the tokens are, see `LazyCache.begin`.
    """
    x, rows = _run(model, cache, step, x)
    begun = x[:, -1:, :1]
    if not cache.config.cuts:
        wanted = step.final or not step.announced
        return Advanced((x[:, -1:] if step.announced else x) if wanted else None, begun)
    queries = rows.queries
    if step.decode:
        cache.aux.pass_by(step.start)
    else:
        cache.leave(x, step)
        note_queries(cache, step, queries)
        queries = cache.queries = last_rows(cache.queries, queries, cache.config.window)
    if not step.final:
        return Advanced(None, begun)
    x, queries, config = x[:, -1:], queries[:, :, -step.window :], cache.config
    if not step.decode or config.revive is None:
        return Advanced(exactly(model, engine.maps, cache, step, x, queries), begun)
    maps = engine.maps
    if maps is not None and recalls(cache, maps):
        replay = engine.resting if rests(cache, step) else engine.replay
        return Advanced(recalling(model, replay, engine.stretched, maps, cache, step, x), begun)
    resting = config.revive == 0 or cache.waiting == 0 or (step.start - cache.turn.end) % config.revive_every
    if resting and config.attend == "computed":
        return Advanced(alone(model, cache, step, x), begun)
    return Advanced(budgeted(model, engine.replay, engine.stretched, cache, step, x, queries), begun)


def _run(model: Network, cache: LazyCache, step: Step, x: mx.array) -> tuple[mx.array, Rows]:
    """New tokens through stage 0."""
    positions = mx.arange(step.start, step.stop, dtype=mx.int32)
    mask: Mask = "causal" if x.shape[1] > 1 else None
    last_only = step.announced and not cache.config.cuts
    # one slot more in decode, as the tables of positions have: what is scored is as long as they are
    span = cache.stages[0].append(positions, step.stop, ahead=1 if step.decode else cache.expected)
    # rotated one by one, many rows lie as the projection left them, which CUDA's fused attention reads faster
    at = positions if x.shape[1] > FEW_ROWS else step.start
    report = None if step.decode else lambda done: step.report(0, done, x.shape[1])
    return run_stage(model, cache, 0, x, View(at, mask, span), last_only=last_only, at_once=report)
