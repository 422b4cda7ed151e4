"""Operations of a prefill, and the speed-up that leaving tokens behind allows: the ceiling of every measured one.

Counted are the matrix products: the projections and the feed-forward network for every token of a layer, attention
from every token to those before it, the LM head for one row. Choosing the tokens is not counted, since an ideal has
no overhead; looking ahead is, where a schedule is chosen by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..config import LazyConfig
from ..nn.maps import Maps
from ..nn.network import Network
from ..nn.windows import looked_through
from ..schedule import Cut

RowCount = float | int  # tokens computed in a layer; a share of a length need not be whole


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # their number, by its names
UNGATED = ("apertus", "nemotron", "starcoder2")  # whose feed-forward has two matrices instead of three


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
    ff_matrices: int = 3
    windows: tuple[int | None, ...] = ()  # tokens that each layer's attention sees; without any, all

    @classmethod
    def of(cls, args: Any, windows: Sequence[int | None] = ()) -> "Sizes | None":
        """The dimensions in a configuration; None for a mixture of experts, which is not counted here.

        Args:
            windows: of the layers, see `Sizes.windows`.
        """
        if any(getattr(args, name, None) for name in EXPERTS) or getattr(args, "intermediate_size", None) is None:
            return None
        H, D = args.num_attention_heads, args.hidden_size
        H_kv, D_h = getattr(args, "num_key_value_heads", None) or H, getattr(args, "head_dim", None) or D // H
        layers = getattr(args, "num_hidden_layers", None) or args.num_layers  # as EXAONE 3 has it
        ff_matrices = 2 if args.model_type in UNGATED else 3
        return cls(layers, D, args.intermediate_size, H, H_kv, D_h, args.vocab_size, ff_matrices, tuple(windows))

    @classmethod
    def of_model(cls, model: Network) -> "Sizes | None":
        """The same of a model that is loaded."""
        return cls.of(model.family.core(model).args, model.windows)


def layer_flops(sizes: Sizes, rows: RowCount, window: int | None = None) -> float:
    """One layer over `rows` tokens that attend causally to each other, up to a window."""
    projections = sizes.D * (2 * sizes.H + 2 * sizes.H_kv) * sizes.D_h
    feed_forward = sizes.ff_matrices * sizes.D * sizes.D_ff
    seen = rows if window is None else min(rows, window)
    pairs = seen * rows - seen * seen / 2  # the first ones see less than the window
    return 2.0 * (rows * (projections + feed_forward) + 2 * sizes.H * sizes.D_h * pairs)  # scores and values


def prefill_flops(sizes: Sizes, rows: Sequence[RowCount]) -> float:
    """A prefill that computes `rows[i]` tokens in layer i, and the head for the last token."""
    windows = sizes.windows or (None,) * len(rows)
    each = (layer_flops(sizes, r, window) for r, window in zip(rows, windows, strict=True))
    return sum(each) + 2.0 * sizes.D * sizes.vocab


def rows_by_layer(layers: int, cuts: Sequence[Cut], tokens: Sequence[RowCount]) -> list[RowCount]:
    """Tokens in each layer, when `tokens[j]` of them are computed in stage j."""
    edges = [0, *(cut.layer for cut in cuts), layers]
    return [count for (start, stop), count in zip(pairwise(edges), tokens, strict=True) for _ in range(start, stop)]


@dataclass(frozen=True)
class Looking:
    """What looking ahead costs.

    Attributes:
        rows: that look at each cut.
        seen: whether these rows attend to filled keys when they go on.
        rank: of the maps; None for full ones.
    """

    rows: int
    seen: bool
    rank: int | None

    @classmethod
    def of(cls, config: LazyConfig, maps: Maps | None) -> "Looking | None":
        """As a model with these maps looks at a configuration's cuts; None if it does not."""
        if maps is None or not maps.serve(config):
            return None
        factors = next(iter(maps.cuts.values())).layers[0].factors
        return cls(config.lookahead, config.filled != "choosing", factors[0].shape[0] if len(factors) > 1 else None)


def looking_flops(sizes: Sizes, cuts: Sequence[Cut], length: int, kept: Sequence[RowCount], looking: Looking) -> float:
    """Operations of filling and looking, for a prompt of `length` tokens of which `kept[j]` pass cut j.

    At each cut all tokens are filled in the layers that are looked through, and some rows run over them. Where filled
    keys are seen, those left behind are filled once more in the layers that the others run through, and those that
    looked attend to them.
    """
    N, D = 2 * sizes.H_kv * sizes.D_h, sizes.D
    fill = 2.0 * (D * N if looking.rank is None else looking.rank * (D + N))
    one_row = layer_flops(sizes, 1) + 4.0 * sizes.H * sizes.D_h * length
    edges, total = [*(cut.layer for cut in cuts), sizes.layers], 0.0
    for (start, stop), through in zip(pairwise(edges), kept, strict=True):
        if through == length:
            continue
        looked = looked_through(sizes.windows or (None,) * sizes.layers, start)
        total += len(looked) * (length * fill + looking.rows * one_row)
        if looking.seen:
            behind, asking = length - through, min(looking.rows, through)
            total += (stop - start) * behind * (fill + 4.0 * sizes.H * sizes.D_h * asking)
    return total


def ideal_speedup(
    sizes: Sizes,
    cuts: Sequence[Cut],
    length: int,
    kept: Sequence[int] | None = None,
    looking: Looking | None = None,
) -> float:
    """How many times fewer operations than the dense model's.

    Args:
        kept: tokens that were let through at each cut; None: exactly the share that the schedule says.
        looking: what looking ahead costs, where it decides.
    """
    behind = [cut.keep * length for cut in cuts] if kept is None else list(kept)
    lazy = prefill_flops(sizes, rows_by_layer(sizes.layers, cuts, [length, *behind]))
    if looking is not None and cuts:
        lazy += looking_flops(sizes, cuts, length, behind, looking)
    return prefill_flops(sizes, [length] * sizes.layers) / lazy


def cache_share(sizes: Sizes, cuts: Sequence[Cut], length: int) -> float:
    """Keys, values and the hidden states of tokens left behind, as a share of the dense model's keys and values."""
    shares = [1.0, *(cut.keep for cut in cuts)]
    kv = sum(rows_by_layer(sizes.layers, cuts, shares)) * 2 * sizes.H_kv * sizes.D_h
    waiting = shares[0] - shares[-1]  # every token that is not computed to the end waits at one cut
    return (kv + waiting * sizes.D) / (sizes.layers * 2 * sizes.H_kv * sizes.D_h)
