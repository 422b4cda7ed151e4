"""A text that another conversation has read, wherever it stood there: what its first stage computed is taken over.

Keys are turned on to their new place, values and hidden states go as they are. They have seen what came before the text
there, not what comes before it here: an answer from them approximates. What is behind the first cut is computed here.
"""

from typing import NamedTuple

import mlx.core as mx

from ..cache.conversation import LazyCache
from ..cache.rows import unpacked
from ..nn.network import Network
from .scoring import asks_in_turn, note_queries, scoring_of


class Excerpt(NamedTuple):
    """Tokens of a prompt that a conversation has read, which lends them (`LazyCache.lend`)."""

    cache: LazyCache
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def take_over(model: Network, cache: LazyCache, excerpt: Excerpt) -> None:
    """Have the tokens of an excerpt as the next ones of a prompt, whose last `window` tokens are still to come.

    Args:
        model: one whose keys are `shiftable`.
    """
    there, start, stop = excerpt
    assert there.lent is not None and there.edges[1] == cache.edges[1]
    cache.expect(excerpt.length, complete=False)
    step = cache.begin(excerpt.length)
    by, stage = step.start - start, cache.stages[0]
    span = stage.append(mx.arange(step.start, step.stop, dtype=mx.int32), step.stop)
    for number, (layer, lent) in enumerate(zip(stage.layers, there.stages[0].layers, strict=True)):
        keys, values = map(unpacked, lent.read(start, stop))
        layer.append(model.family.attention_of(model.layers[number]).shifted(keys, by), values, span)
    positions = mx.arange(start, stop, dtype=mx.int32)
    cache.leave(there.lent.at(positions)[None], step)
    if asks_in_turn(cache):
        attention, rows = scoring_of(model, cache, 0)[0], there.prompt_queries.at(positions)
        queries = rows.reshape(1, len(positions), attention.heads, -1).swapaxes(1, 2)
        note_queries(cache, step, attention.shifted(queries, by))
