"""Links: what the most important tokens of a prompt themselves attend to.

A question attends to its evidence. Where the evidence refers to something else (a variable that copies another one), it
attends to that, and nothing that asks does yet. So at the first cut of a prompt the most important tokens are asked in
turn, and what they attend to counts as much as they do. Not in the paper, whose importance is that of one step.
"""

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.rows import RowBuffer
from ..nn.compiling import compiled
from .selection import candidate_keys, countdown_from, positions_of, smoothed, top

BITS, GROUP_SIZE = 4, 64  # of stored queries: they only have to find their keys again


def query_buffer(width: int) -> RowBuffer:
    """For the queries of a prompt's tokens, `(N, width)`, packed if they can be."""
    return RowBuffer(0) if width % GROUP_SIZE else RowBuffer(0, BITS, GROUP_SIZE)


def by_token(queries: Float[mx.array, "1 H L D_h"]) -> Float[mx.array, "L N"]:
    """Each token's queries in one row."""
    return queries.squeeze(0).swapaxes(0, 1).flatten(1)


def widely(importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"], pool: int) -> Float[mx.array, " P"]:
    """Importance over a neighbourhood, in which a reference and its target's name lie."""
    return smoothed(smoothed(importance, candidates, pool), candidates, pool)


def most(importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"], count: int) -> Integer[mx.array, " F"]:
    """Positions of the most important candidates; the last place, which is nobody's, where there are not so many."""
    places = len(importance)
    keys = compiled(candidate_keys)(importance, candidates, countdown_from(places))
    return positions_of(top(keys, count), mx.array(places))


def with_links(
    importance: Float[mx.array, " P"],
    candidates: Bool[mx.array, " P"],
    asked: Integer[mx.array, " F"],
    weights: Float[mx.array, " F"],
    attention: Float[mx.array, "F P"],
    reach: int,
) -> Float[mx.array, " P"]:
    """Importance, and as much again for what the tokens that were `asked` attend to.

    Args:
        candidates: the tokens between which to choose.
        weights: of the tokens that were asked.
        attention: that they pay to every position.
        reach: neighbours on either side that do not count: smoothing sees to them.
    """
    second = weights @ compiled(beyond)(attention, candidates, asked, mx.arange(len(importance)), mx.array(reach))
    share = mx.where(candidates, importance, 0.0).sum() / mx.maximum(second.sum(), 1e-20)
    return importance + second * share


def beyond(
    attention: Float[mx.array, "F P"],
    candidates: Bool[mx.array, " P"],
    asked: Integer[mx.array, " F"],
    place: Integer[mx.array, " P"],
    reach: Integer[mx.array, ""],
) -> Float[mx.array, "F P"]:
    """Attention to candidates outside of the neighbourhood of the token that pays it."""
    return mx.where(candidates & (mx.abs(place - asked[:, None]) > reach), attention, 0.0)
