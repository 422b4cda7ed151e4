"""A network split over ranks: each has some of the heads of every layer, and some of the feed-forward's columns.

What reads a hidden state is cut by its outputs, and what writes one by its inputs; what the ranks write is added up,
once after attention and once after the feed-forward. So hidden states are the same on every rank, and everything that
follows from them is. The cut layers are MLX's own. A rank reads a layer, keeps its part, and lets the others' go before
it reads the next one.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import shard_inplace, shard_linear

from ..errors import ModelError
from ..ranks.group import Ranks
from .attention import Attention, heads_normed, separate
from .identity import Known, known, weights_of
from .network import Network

READING, WRITING = ("gate_proj", "up_proj"), "down_proj"  # of a feed-forward
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def shard(network: Network, ranks: Ranks) -> None:
    """Keep this rank's part alone. Projections must not have been joined yet.

    Raises:
        ModelError: it cannot be split over so many ranks; nothing has been read then.
    """
    if ranks.size == 1:
        return
    check_splits(network, ranks.size)
    names, seen = {id(w): name for name, w in weights_of(network.parameters())}, dict[str, Known]()

    def note(module: nn.Module) -> None:
        whole = [(names[id(w)], w) for _, w in weights_of(module.parameters()) if id(w) in names]
        seen.update((each.name, each) for each in known((name, w) for name, w in whole if name not in seen))

    for layer in network.layers:
        note(layer)
        _shard_attention(network.family.attention_of(layer), ranks)
        _shard_feed_forward(layer["mlp"], ranks)
        mx.eval(layer.parameters())
        mx.clear_cache()  # of the others' parts
    note(network)
    network.ranks, network.identity = ranks, tuple(seen[name] for name in names.values())


def check_splits(network: Network, size: int) -> None:
    """Refuse a network that cannot be split over so many ranks.

    Raises:
        ModelError: the message says over how many it can be, if over any.
    """
    widths = set[int]()
    for layer in network.layers:
        attention = network.family.attention_of(layer)
        if not (_has_plain_heads(attention) and "mlp" in layer and set(layer["mlp"].children()) == {*READING, WRITING}):
            raise ModelError(
                f"model: type {network.model_type!r} cannot be split over ranks: its attention or its feed-forward is "
                "not made of the projections of Llama's; use one machine"
            )
        widths |= {attention.heads, attention.kv_heads, _inputs(layer["mlp"][WRITING])}
        widths.add(_inputs(attention[attention.projected_by]))
    if any(width % size for width in widths):
        fitting = [str(n) for n in range(2, min(widths) + 1) if not any(width % n for width in widths)]
        advice = f"start {' or '.join(fitting)} ranks" if fitting else "use one machine"
        kv_heads = min(network.family.attention_of(layer).kv_heads for layer in network.layers)
        raise ModelError(
            f"model: its {kv_heads} key heads and its feed-forward cannot be split over {size} ranks; {advice}"
        )


def _has_plain_heads(attention: Attention) -> bool:
    """Whether heads have nothing to do with each other before their outputs are projected."""
    norms = [attention[name] for name in ("q_norm", "k_norm") if name in attention]
    plain = attention.project in (separate, heads_normed) and attention.gate is None and attention.sinks is None
    named = {*PROJECTIONS, attention.projected_by} <= attention.keys()
    return plain and named and all(w.ndim == 1 for norm in norms for _, w in weights_of(norm.parameters()))


def _inputs(part: nn.Module) -> int:
    """In how many pieces a projection can be cut by its inputs: packed ones only between groups."""
    return part["scales" if "scales" in part else "weight"].shape[-1]


def _shard_attention(attention: Attention, ranks: Ranks) -> None:
    for name in PROJECTIONS:
        shard_inplace(attention[name], "all-to-sharded", group=ranks.group)
    written = attention.projected_by
    attention[written] = shard_linear(attention[written], "sharded-to-all", group=ranks.group)
    attention.heads, attention.kv_heads = attention.heads // ranks.size, attention.kv_heads // ranks.size


def _shard_feed_forward(part: nn.Module, ranks: Ranks) -> None:
    for name in READING:
        shard_inplace(part[name], "all-to-sharded", group=ranks.group)
    part[WRITING] = shard_linear(part[WRITING], "sharded-to-all", group=ranks.group)
