"""Operations of a prefill, and the speed-up that leaving tokens behind allows: the ceiling of every measured one.

Counted are the matrix products: the projections and the feed-forward network for every token of a layer, attention
from every token to those before it, the LM head for one row. Choosing the tokens is not counted, since an ideal has
no overhead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .config import Cut

Rows = float | int  # tokens computed in a layer; a share of a length need not be whole


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # names of their number in configurations


@dataclass(frozen=True)
class Sizes:
    """The dimensions of a model that operations depend on."""

    layers: int
    D: int
    D_ff: int
    H: int
    H_kv: int
    D_h: int
    vocab: int

    @classmethod
    def of(cls, args: Any) -> "Sizes | None":
        """The dimensions in a configuration; None for a mixture of experts, which is not counted here."""
        if any(getattr(args, name, None) for name in EXPERTS) or getattr(args, "intermediate_size", None) is None:
            return None
        H, D = args.num_attention_heads, args.hidden_size
        H_kv, D_h = getattr(args, "num_key_value_heads", None) or H, getattr(args, "head_dim", None) or D // H
        layers = getattr(args, "num_hidden_layers", None) or args.num_layers  # as EXAONE 3 has it
        return cls(layers, D, args.intermediate_size, H, H_kv, D_h, args.vocab_size)


def layer_flops(sizes: Sizes, rows: Rows) -> float:
    """One layer over `rows` tokens that attend causally to each other."""
    projections = sizes.D * (2 * sizes.H + 2 * sizes.H_kv) * sizes.D_h
    feed_forward = 3 * sizes.D * sizes.D_ff
    attention = sizes.H * sizes.D_h * rows  # scores and values, half of each masked
    return 2.0 * rows * (projections + feed_forward + attention)


def prefill_flops(sizes: Sizes, rows: Sequence[Rows]) -> float:
    """A prefill that computes `rows[i]` tokens in layer i, and the head for the last token."""
    return sum(layer_flops(sizes, r) for r in rows) + 2.0 * sizes.D * sizes.vocab


def rows_by_layer(layers: int, cuts: Sequence[Cut], tokens: Sequence[Rows]) -> list[Rows]:
    """Tokens in each layer, when `tokens[j]` of them are computed in stage j."""
    edges = [0, *(cut.layer for cut in cuts), layers]
    return [count for (start, stop), count in zip(pairwise(edges), tokens, strict=True) for _ in range(start, stop)]


def ideal_speedup(sizes: Sizes, cuts: Sequence[Cut], length: int, kept: Sequence[int] | None = None) -> float:
    """How many times fewer operations than the dense model's.

    Args:
        kept: tokens that were let through at each cut; None: exactly the share that the schedule says.
    """
    behind = [cut.keep * length for cut in cuts] if kept is None else list(kept)
    lazy = rows_by_layer(sizes.layers, cuts, [length, *behind])
    return prefill_flops(sizes, [length] * sizes.layers) / prefill_flops(sizes, lazy)


def cache_share(sizes: Sizes, cuts: Sequence[Cut], length: int) -> float:
    """Keys, values and the hidden states of tokens left behind, as a share of the dense model's keys and values."""
    shares = [1.0, *(cut.keep for cut in cuts)]
    kv = sum(rows_by_layer(sizes.layers, cuts, shares)) * 2 * sizes.H_kv * sizes.D_h
    waiting = shares[0] - shares[-1]  # every token that is not computed to the end waits at one cut
    return (kv + waiting * sizes.D) / (sizes.layers * 2 * sizes.H_kv * sizes.D_h)
