"""Which tokens go on: importance, smoothing, and the choice of the best.

A `Scorer` turns the window's queries and the keys at a cut into one importance per key. `select` makes the
choice of it, on the device and with static shapes, so that the same code serves prefill and a decode step that
must not wait. Kept tokens are a mask over positions, hence always in the order of the conversation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, partial

import mlx.core as mx
from jaxtyping import Bool, Float, Int64, Integer

from .attention import probabilities
from .config import Reduce

NO_CANDIDATE = -(2**63)  # the sort key of what is not to be chosen: lower than any other


def no_candidate() -> Int64[mx.array, ""]:
    return mx.array(NO_CANDIDATE, mx.int64)


class Scorer(ABC):
    """Importance of every key to the query window. To write a new one, implement `__call__`."""

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
            keys: of the same layer, rotated, in the order of the pool (not of the positions).
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

    def __call__(self, queries, keys, visible):
        by_head = attention(queries, keys, visible, self.softcap, self.sinks).mean(axis=1)
        return by_head.max(axis=0) if self.reduce == "max" else by_head.mean(axis=0)


def attention(
    queries: Float[mx.array, "H W D_h"],
    keys: Float[mx.array, "H_kv S D_h"],
    visible: Bool[mx.array, "W S"] | None = None,
    softcap: float | None = None,
    sinks: Float[mx.array, " H"] | None = None,
) -> Float[mx.array, "H W S"]:
    """Attention probabilities in float32. Fused attention does not return them; for a few queries they are cheap."""
    return probabilities(queries[None], keys[None], visible, softcap=softcap, sinks=sinks)[0]


def smooth(importance: Float[mx.array, " P"], active: Bool[mx.array, " P"], pool: int) -> Float[mx.array, " P"]:
    """Average each importance with those of the active positions at most `pool // 2` away."""
    if pool == 1:
        return importance
    reach, P = pool // 2, importance.shape[0]
    value = mx.pad(mx.where(active, importance, 0.0), (reach, reach))
    there = mx.pad(active.astype(mx.float32), (reach, reach))
    total, count = value[:P], there[:P]
    for i in range(1, pool):
        total, count = total + value[i : i + P], count + there[i : i + P]
    return total / mx.maximum(count, 1.0)


def rank(importance: Float[mx.array, " P"], candidates: Bool[mx.array, " P"]) -> Int64[mx.array, " P"]:
    """A key per position that sorts as its importance does; of equal ones, the earlier position is higher.

    Every key differs from every other (but for the non-candidates, which all have the lowest), so that the choice
    does not depend on a backend's sort being stable.
    """
    bits = importance.astype(mx.float32).view(mx.int32)
    # floats sort by their bits, once the sign of the negative ones is made an integer's; both zeros are 0
    ordered = mx.where(bits < 0, -(bits & 0x7FFFFFFF), bits).astype(mx.int64)
    P = importance.shape[0]
    keys = mx.left_shift(ordered, mx.array(32, mx.int64)) + mx.arange(P - 1, -1, -1).astype(mx.int64)
    return mx.where(candidates, keys, no_candidate())


def best(keys: Int64[mx.array, " P"], k: int | Integer[mx.array, ""]) -> Bool[mx.array, " P"]:
    """The `k` highest keys of `rank`, or all candidates if they are fewer."""
    P = keys.shape[0]
    k = mx.array(k)
    threshold = mx.sort(keys)[mx.clip(P - k, 0, P - 1)]
    return (keys >= threshold) & (keys != no_candidate()) & (k > 0)


def choose(
    importance: Float[mx.array, " P"],
    active: Bool[mx.array, " P"],
    protected: Bool[mx.array, " P"],
    k: Integer[mx.array, ""],
    pool: int = 1,
) -> tuple[Bool[mx.array, " P"], Int64[mx.array, " P"]]:
    """The `k` most important active tokens, and the protected ones on top (LazyLLM sec 3.2).

    Returns:
        The selected positions, and their sort keys (`NO_CANDIDATE` elsewhere).
    """
    keys = rank(smooth(importance, active, pool), active)
    selected = best(mx.where(protected, no_candidate(), keys), k) | (active & protected)
    return selected, mx.where(selected, keys, no_candidate())


@cache
def chooser(pool: int, compiled: bool) -> Callable[..., tuple[mx.array, mx.array]]:
    """`choose` for a pool width. Compiled, its fifty small operations become a few kernels; the length of the tables
    changes once in hundreds of tokens, so that it is seldom traced. On a CPU, compiling takes longer than it saves."""
    choice = partial(choose, pool=pool)
    return mx.compile(choice) if compiled else choice


def select(
    importance: Float[mx.array, " P"],
    active: Bool[mx.array, " P"],
    protected: Bool[mx.array, " P"],
    k: int,
    pool: int = 1,
) -> tuple[Bool[mx.array, " P"], Int64[mx.array, " P"]]:
    """`choose`, compiled where that pays."""
    return chooser(pool, mx.default_device() == mx.Device(mx.gpu))(importance, active, protected, mx.array(k))
