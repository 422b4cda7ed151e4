"""Which tokens go on: importance, smoothing, and the choice of the best.

A `Scorer` turns the window's queries and the keys at a cut into one importance per key. `select` makes the
choice of it, on the device and with static shapes, so that the same code serves prefill and a decode step that
must not wait. Kept tokens are a mask over positions, hence always in the order of the conversation.

A step of few rows is bound by the number of kernels, so what is a chain of small operations here is compiled, tables
that only depend on shapes are made once, and where few are to be chosen, few are sorted.
"""

from abc import ABC, abstractmethod
from functools import lru_cache, reduce

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from ..config import Reduce
from ..nn.attend import probabilities
from ..nn.compiling import compiled

# The sort key of what is not to be chosen: lower than any other, its low bits 0; and not -2^63, which Metal's compiler
# may read as the negative of a number that is too large.
NO_CANDIDATE = -(2**63) + 2**32
FIRST = 0x7FFFFFFF << 32  # above the key of any score
LOW = 0xFFFFFFFF  # of a key, the bits that tell the position
BLOCK = 128  # neighbouring keys that are looked at together where few are to be chosen


class Scorer(ABC):
    """Importance of every key to the query window. To write a new one, implement `__call__`.

    Where several ranks hold the model it is given the heads of its own, and the mean over the ranks counts.
    """

    @abstractmethod
    def __call__(
        self,
        queries: Float[mx.array, "H W D_h"],
        keys: Float[mx.array, "H_kv S D_h"],
        visible: Bool[mx.array, "W S"] | None,
    ) -> Float[mx.array, " S"]:
        """Higher is more important.

        Args:
            queries: of the layer before the cut, rotated and already multiplied by the attention's scale.
            keys: of the same layer, rotated, in the order of their arrival (not of the positions).
            visible: which keys each query may see; None means all of them.
        """


class AttentionScorer(Scorer):
    """LazyLLM's importance (eq. 1): attention probability, averaged over the window, reduced over the heads.

    Args:
        reduce: how the heads' values become one.
        softcap, sinks: of the layer's attention, see `attention.attend`.
    """

    def __init__(self, reduce: Reduce = "mean", softcap: float | None = None, sinks: mx.array | None = None):
        self.reduce, self.softcap, self.sinks = reduce, softcap, sinks

    def __call__(
        self,
        queries: Float[mx.array, "H W D_h"],
        keys: Float[mx.array, "H_kv S D_h"],
        visible: Bool[mx.array, "W S"] | None,
    ) -> Float[mx.array, " S"]:
        return self._reduced(attention(queries, keys, visible, self.softcap, self.sinks))

    def of(self, logits: Float[mx.array, "H W S"]) -> Float[mx.array, " S"]:
        """The same of attention's logits, from which nothing is missing."""
        return self._reduced(mx.softmax(logits.astype(mx.float32), axis=-1))

    def _reduced(self, each: Float[mx.array, "H W S"]) -> Float[mx.array, " S"]:
        return each.mean(axis=1).max(axis=0) if self.reduce == "max" else each.mean(axis=(0, 1))


def attention(
    queries: Float[mx.array, "H W D_h"],
    keys: Float[mx.array, "H_kv S D_h"],
    visible: Bool[mx.array, "W S"] | None = None,
    softcap: float | None = None,
    sinks: Float[mx.array, " H"] | None = None,
) -> Float[mx.array, "H W S"]:
    """Attention probabilities in float32. Fused attention does not return them; for a few queries they are cheap."""
    return probabilities(queries[None], keys[None], visible, softcap=softcap, sinks=sinks).squeeze(0)


def select(
    importance: Float[mx.array, " P"],
    active: Bool[mx.array, " P"],
    protected: Bool[mx.array, " P"],
    k: int,
    pool: int = 1,
    own: float = 0.0,
) -> Bool[mx.array, " P"]:
    """The `k` most important active tokens, and the protected ones on top (LazyLLM sec 3.2).

    Args:
        own: weight of a token's own importance beside the average of its neighbours, which is the same for many tokens
            where it is wide.
    """
    near, countdown = smoothed(importance, active, pool), countdown_from(len(importance))
    near = near + own * importance if own else near
    keys = compiled(candidate_keys)(near, active & ~protected, countdown)
    return compiled(chosen)(keys, highest(mx.sort(keys), k), active, protected)


def best_waiting(
    importance: Float[mx.array, " P"],
    active: Bool[mx.array, " P"],
    protected: Bool[mx.array, " P"],
    waiting: Bool[mx.array, " P"],
    count: int,
    pool: int = 1,
) -> Integer[mx.array, " R"]:
    """Positions of the `count` most important tokens of those that wait, which are as many at least, in no order.

    Protected ones come first. What is not active has the importance of its active neighbours.
    """
    near, countdown = smoothed(importance, active, pool), countdown_from(len(importance))
    keys = compiled(waiting_keys)(near, protected, waiting, countdown)
    return compiled(positions_of)(top(keys, count), mx.array(len(importance)))


def smoothed(importance: Float[mx.array, " P"], active: Bool[mx.array, " P"], pool: int) -> Float[mx.array, " P"]:
    """Of the `pool` positions around each one, the average importance of those that are active; 0 where none is.
    Each one's own, active or not, where nothing is smoothed."""
    importance = importance.astype(mx.float32)
    if pool == 1:
        return importance
    each = mx.pad(compiled(counted)(importance, active, value_and_one()), [(0, 0), (pool // 2, pool // 2)])
    return compiled(averages)(each, pool)


def counted(
    importance: Float[mx.array, " P"], active: Bool[mx.array, " P"], is_value: Bool[mx.array, "2 1"]
) -> Float[mx.array, "2 P"]:
    """Of each position its importance, and 1; both 0 where it is not active."""
    return mx.where(active, mx.where(is_value, importance, 1.0), 0.0)


def averages(each: Float[mx.array, "2 N"], pool: int) -> Float[mx.array, " P"]:
    """Of every `pool` neighbours: the sum of their importances, by their number. Sums of a few and then sums of these,
    since one kernel does not add up so many."""
    few, places = round(pool**0.5), each.shape[1] - pool + 1
    width = each.shape[1] - few + 1
    some = reduce(mx.add, [each[:, at : at + width] for at in range(few)])
    full = [some[:, at : at + places] for at in range(0, pool - few + 1, few)]
    rest = [each[:, at : at + places] for at in range(pool - pool % few, pool)]
    # by slices: an index would be a kernel, and so would a sum that both rows are taken from
    total, count = (reduce(mx.add, [part[row : row + 1].squeeze(0) for part in full + rest]) for row in (0, 1))
    return total / mx.maximum(count, 1)


def rank(importance: Float[mx.array, " P"], countdown: Int64[mx.array, " P"]) -> Int64[mx.array, " P"]:
    """A key per position that sorts as its importance does; of equal ones, the earlier position is higher.

    Every key differs from every other, so that the choice does not depend on a backend's sort being stable, and its
    low bits tell the position.
    """
    bits = importance.view(mx.int32)
    # floats sort by their bits, once the sign of the negative ones is made an integer's; both zeros are 0
    ordered = mx.where(bits < 0, -(bits & 0x7FFFFFFF), bits).astype(mx.int64)
    return mx.left_shift(ordered, mx.array(32, mx.int64)) + countdown


def candidate_keys(
    importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"], countdown: Int64[mx.array, " P"]
) -> Int64[mx.array, " P"]:
    """Sort keys of the tokens between which to choose."""
    return mx.where(candidates, rank(importance, countdown), no_candidate())


def waiting_keys(
    importance: Float[mx.array, " P"],
    protected: Bool[mx.array, " P"],
    waiting: Bool[mx.array, " P"],
    countdown: Int64[mx.array, " P"],
) -> Int64[mx.array, " P"]:
    """Sort keys of the tokens that wait."""
    keys = mx.where(protected, countdown + FIRST, rank(importance, countdown))
    return mx.where(waiting, keys, no_candidate())


def top(keys: Int64[mx.array, " P"], count: int) -> Int64[mx.array, " R"]:
    """The `count` highest keys, in rising order.

    They lie in as many blocks at most, those whose own highest ones are highest, and only these are sorted: sorting all
    takes a dozen kernels.
    """
    if len(keys) % BLOCK or len(keys) < 2 * count * BLOCK:
        return mx.sort(keys)[-count:]
    blocks = keys.reshape(-1, BLOCK)
    best = mx.argsort(blocks.max(axis=1))[-count:]
    return mx.sort(blocks[best].flatten())[-count:]


def highest(ordered: Int64[mx.array, " P"], k: int) -> Int64[mx.array, " 1"]:
    """The `k`-th highest of keys in rising order, or the lowest."""
    if k < 1:
        return mx.array([FIRST], mx.int64)
    at = max(len(ordered) - k, 0)
    return ordered[at : at + 1]


def chosen(
    keys: Int64[mx.array, " P"],
    threshold: Int64[mx.array, " 1"],
    active: Bool[mx.array, " P"],
    protected: Bool[mx.array, " P"],
) -> Bool[mx.array, " P"]:
    """The candidates from a key on, and the protected tokens on top."""
    return ((keys >= threshold) & (keys != no_candidate())) | (active & protected)


def positions_of(keys: Int64[mx.array, " R"], places: Integer[mx.array, ""]) -> Integer[mx.array, " R"]:
    """Where the tokens with these sort keys stand, among so many places; `NO_CANDIDATE` is at the last one."""
    return places - 1 - (keys & LOW).astype(mx.int32)


def no_candidate() -> Int64[mx.array, ""]:
    return mx.array(NO_CANDIDATE, mx.int64)


# what depends on shapes alone, made once; the shapes change once in hundreds of tokens


@lru_cache(maxsize=16)
def countdown_from(places: int) -> Int64[mx.array, " P"]:
    return mx.array(np.arange(places - 1, -1, -1, dtype=np.int64))


@lru_cache
def value_and_one() -> Bool[mx.array, "2 1"]:
    return mx.array([[True], [False]])
