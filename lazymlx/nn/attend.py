"""The arithmetic of attention, for what MLX's fused kernel does not do: few bits, caps, and the probabilities.

Everything here is a pure function of arrays. Keys and values come as arrays or, packed in few bits, as `Quantized`.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.masks import Mask, causal
from ..cache.rows import MaybePacked, Quantized, unpacked
from ..cache.stage import KeysAndValues
from .backend import ways

Parts = Sequence[KeysAndValues]
"""Sets of keys, rotated, and values, each as it is stored."""

FEW_ROWS = 8  # so many queries need no fused kernel, and read packed keys as they are
ALIGNED = 8  # cuBLAS wants rows of logits to begin at multiples of so many
MOST_LOGITS = 1 << 27  # logits that exist at a time where they cannot stay inside of a kernel: 512 MiB of float32


class Shown:
    """Which keys rows see, for all layers in which they see the same: what hides the others is made once."""

    def __init__(self, mask: Bool[mx.array, "L S"]):
        self.mask = mask
        self._hiding = dict[tuple[mx.Dtype, int, int, int], mx.array]()

    def hiding(self, queries: mx.array, kv_heads: int, first: int, stop: int) -> Float[mx.array, "R N"]:
        """What is added to the logits of the keys `[first, stop)`: a row for each of the heads that share keys."""
        key = queries.dtype, queries.shape[1] // kv_heads, first, stop
        if key not in self._hiding:
            self._hiding[key] = mx.tile(additive(self.mask[:, first:stop], key[0]), (key[1], 1))
        return self._hiding[key]

    @classmethod
    def beside(
        cls,
        at: Integer[mx.array, " L"],
        others: Integer[mx.array, " F"],
        own: Bool[mx.array, "L T"],
        window: int | None = None,
    ) -> "Shown":
        """What rows at these positions see of other tokens, and then of their stage."""
        return cls(mx.concatenate([causal(at, others, window), own], axis=1))

    def last(self) -> "Shown":
        """For the last row alone."""
        return Shown(self.mask[-1:])


def attend(
    queries: Float[mx.array, "B H L D_h"],
    keys: MaybePacked,
    values: MaybePacked,
    *,
    scale: float,
    mask: Mask = None,
    softcap: float | None = None,
    sinks: Float[mx.array, " H"] | None = None,
) -> Float[mx.array, "B H L D_h"]:
    """Attention of every query to the keys that `mask` shows.

    Args:
        mask: which keys each query sees; "causal" if the queries are the last of the keys; None for all.
        softcap: logits are squeezed into (-softcap, softcap) (Gemma 2).
        sinks: a logit per head that takes its share of the attention and has no value (gpt-oss).
    """
    few = queries.shape[2] <= FEW_ROWS and sinks is None and isinstance(keys, Quantized)
    if softcap is None and not few:
        keys, values = unpacked(keys), unpacked(values)
        if isinstance(mask, mx.array) and ways().additive:
            mask = additive(mask, queries.dtype)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
    L, S = queries.shape[2], keys.shape[2]
    rows = max(1, MOST_LOGITS // (queries.shape[0] * queries.shape[1] * S))
    outs = []
    for start in range(0, L, rows):
        part = queries[:, :, start : start + rows] * scale
        seen = visible_to(mask, start, part.shape[2], L, S)
        probability = probabilities(part, keys, seen, softcap=softcap, sinks=sinks)
        outs.append(weighted(probability.astype(queries.dtype), values))
    return mx.concatenate(outs, axis=2) if len(outs) > 1 else outs[0]


def attend_few(
    queries: Float[mx.array, "B H L D_h"],
    keys: Float[mx.array, "B H_kv S D_h"],
    values: Float[mx.array, "B H_kv S D_h"],
    scale: float,
    mask: Bool[mx.array, "L S"],
) -> tuple[Float[mx.array, "B H L D_h"], Float[mx.array, "B H L S"]]:
    """Attention of a few rows, as of a decode step that revives, in three kernels and as precise as MLX's own fallback.
    CUDA's fused kernel is planned anew for each shape of a mask.

    Returns:
        The output, and the logits, scaled and with what is not seen hidden.
    """
    logits = hidden_logits(queries, keys, scale, Shown(mask), 0)
    return weighted(mx.softmax(logits, axis=-1, precise=True), values), logits


def attend_in_parts(
    queries: Float[mx.array, "B H L D_h"],
    parts: Parts,
    scale: float,
    shown: Shown,
    *,
    softcap: float | None = None,
    sinks: Float[mx.array, " H"] | None = None,
) -> tuple[Float[mx.array, "B H L D_h"], Float[mx.array, "B H L S"]]:
    """Attention of some rows to several sets of keys and values. They are joined, unless some are multiplied as they
    are packed: what is copied is no more than the logits of several products would be, and fewer kernels are started.

    Returns:
        The output, and the probabilities, in the type of the queries.
    """
    if not (ways().multiplied and any(isinstance(keys, Quantized) for keys, _ in parts)):
        parts = [concatenated(parts)]
    ends = list(accumulate(keys.shape[2] for keys, _ in parts))
    if softcap is None and sinks is None:
        firsts = [0, *ends[:-1]]
        each = [hidden_logits(queries, keys, scale, shown, at) for (keys, _), at in zip(parts, firsts, strict=True)]
        probability = mx.softmax(joined(each), axis=-1, precise=True)
    else:
        logits = joined([logits_of(queries * scale, keys) for keys, _ in parts])
        probability = from_logits(logits, shown.mask, softcap=softcap, sinks=sinks).astype(queries.dtype)
    shares = mx.split(probability, ends[:-1], axis=-1) if len(parts) > 1 else [probability]
    outs = [weighted(share, values) for share, (_, values) in zip(shares, parts, strict=True)]
    return reduce(mx.add, outs), probability


def concatenated(parts: Parts) -> tuple[mx.array, mx.array]:
    """Keys and values of several sets, one behind the other."""
    keys, values = (joined([unpacked(part) for part in each], axis=2) for each in zip(*parts, strict=True))
    return keys, values


def joined(arrays: Sequence[mx.array], axis: int = -1) -> mx.array:
    """Arrays one behind the other; a single one as it is, where MLX would copy it."""
    return mx.concatenate(list(arrays), axis=axis) if len(arrays) > 1 else arrays[0]


def additive(mask: Bool[mx.array, "L S"], dtype: mx.Dtype) -> Float[mx.array, "L S"]:
    """What is added to logits: nothing where a key is seen, and else what hides it."""
    return mx.where(mask, mx.array(0, dtype), mx.array(-mx.inf, dtype))


def by_group(x: Float[mx.array, "B H L N"], kv_heads: int) -> Float[mx.array, "B H_kv R N"]:
    """Rows of the heads that share keys, together: no copies of the keys are needed then."""
    B, H, L, _ = x.shape
    return x.reshape(B, kv_heads, H // kv_heads * L, -1)


def hidden_logits(
    queries: Float[mx.array, "B H L D_h"], keys: MaybePacked, scale: float, shown: Shown, first: int
) -> Float[mx.array, "B H L S"]:
    """Logits, scaled, and with what is not seen hidden: by the product itself, where several rows meet keys that are
    not packed.

    Args:
        first: of the keys, among all that are shown or not.
    """
    B, H, L, _ = queries.shape
    kv_heads, stop = keys.shape[1], first + keys.shape[2]
    if isinstance(keys, Quantized) or L * H == kv_heads:
        return logits_of(queries * scale, keys) + shown.hiding(queries, H, first, stop)
    hidden, grouped = shown.hiding(queries, kv_heads, first, stop), by_group(queries, kv_heads)
    return mx.addmm(hidden, grouped, keys.swapaxes(-1, -2), alpha=scale).reshape(B, H, L, -1)


def probabilities(
    queries: Float[mx.array, "B H L D_h"],
    keys: MaybePacked,
    visible: Bool[mx.array, "L S"] | None = None,
    *,
    softcap: float | None = None,
    sinks: Float[mx.array, " H"] | None = None,
) -> Float[mx.array, "B H L S"]:
    """Attention probabilities in float32; the queries are already scaled."""
    return from_logits(logits_of(queries, keys), visible, softcap=softcap, sinks=sinks)


def logits_of(queries: Float[mx.array, "B H L D_h"], keys: MaybePacked) -> Float[mx.array, "B H L S"]:
    """As the product gives them; the queries are already scaled."""
    B, H, L, _ = queries.shape
    if isinstance(keys, Quantized):
        return packed_product(queries, keys, transpose=True)
    return products(by_group(queries, keys.shape[1]), keys).reshape(B, H, L, -1)


def from_logits(
    logits: Float[mx.array, "B H L S"],
    visible: Bool[mx.array, "L S"] | None,
    *,
    softcap: float | None,
    sinks: Float[mx.array, " H"] | None,
) -> Float[mx.array, "B H L S"]:
    """Probabilities, in float32."""
    B, H, L, _ = logits.shape
    logits = logits.astype(mx.float32)
    if softcap is not None:
        logits = mx.tanh(logits / softcap) * softcap
    if visible is not None:
        logits = mx.where(visible, logits, -mx.inf)
    if sinks is None:
        return mx.softmax(logits, axis=-1)
    beside = mx.broadcast_to(sinks.astype(mx.float32)[:, None, None], (B, H, L, 1))
    return mx.softmax(mx.concatenate([logits, beside], axis=-1), axis=-1)[..., :-1]


def products(
    rows: Float[mx.array, "B H_kv R D_h"], keys: Float[mx.array, "B H_kv S D_h"]
) -> Float[mx.array, "B H_kv R S"]:
    """Of rows and keys. One row goes twice where it pays: CUDA's product of one reads keys more slowly than that of
    several, unless their number is odd (log of 2026-11-26, "one row that is asked twice")."""
    if rows.shape[2] > 1 or keys.shape[2] % ALIGNED or not ways().doubled:
        return rows @ keys.swapaxes(-1, -2)
    return (mx.repeat(rows, 2, axis=2) @ keys.swapaxes(-1, -2))[:, :, :1]


def weighted(probability: Float[mx.array, "B H L S"], values: MaybePacked) -> Float[mx.array, "B H L D_h"]:
    """The values, averaged with these weights."""
    if isinstance(values, Quantized):
        return packed_product(probability, values, transpose=False)
    B, H, L, _ = probability.shape
    return (by_group(probability, values.shape[1]) @ values).reshape(B, H, L, -1)


def packed_product(rows: Float[mx.array, "B H L N"], packed: Quantized, *, transpose: bool) -> mx.array:
    """Of rows and packed keys or values, `(B, H, L, ...)`; see `Ways.grouped`."""
    B, H, L, _ = rows.shape
    kv_heads = packed.shape[1]
    if ways().grouped:
        out = packed.product(by_group(rows, kv_heads), transpose=transpose)
    else:
        out = packed.for_each().product(rows.reshape(B, kv_heads, H // kv_heads, L, -1), transpose=transpose)
    return out.reshape(B, H, L, -1)


def visible_to(mask: Mask, start: int, rows: int, L: int, S: int) -> Bool[mx.array, "rows S"] | None:
    """The part of a mask for some of the `L` queries."""
    if mask is None:
        return None
    if isinstance(mask, str):
        return mx.arange(S)[None] <= (mx.arange(start, start + rows) + S - L)[:, None]
    return mask[start : start + rows]
