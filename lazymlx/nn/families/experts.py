"""gpt-oss, Trinity and Mellum 2: mixtures of experts with windowed layers; sinks, or a gate on attention's output."""

from typing import Any

import mlx.core as mx

from ..attention import Attention, Variant, heads_normed
from .family import Family, listed_window


def gpt_oss(args: Any, index: int, theirs: Any) -> Attention:
    """Sinks are one of attention's parts, hence taken over with the others; layers take turns."""
    windowed = args.layer_types[index] == "sliding_attention" if args.layer_types else index % 2 == 0
    return Attention(args, theirs, Variant(scale=theirs.sm_scale, window=args.sliding_window if windowed else None))


def gated(attention: Attention, out: mx.array, x: mx.array) -> mx.array:
    return out * mx.sigmoid(attention["gate_proj"](x))


def afmoe(args: Any, index: int, theirs: Any) -> Attention:
    windowed = theirs.is_local_attention
    return Attention(
        args,
        theirs,
        Variant(
            project=heads_normed,
            rope="rope" if windowed else None,
            window=args.sliding_window if windowed else None,
            gate=gated,
        ),
    )


def afmoe_embedding(args: Any, x: mx.array) -> mx.array:
    return x * args.hidden_size**0.5 if args.mup_enabled else x


def mellum(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=heads_normed, window=listed_window(args, index)))


EXPERTS = {
    "gpt_oss": Family("gpt-oss", "gpt_oss", gpt_oss),
    "afmoe": Family("Trinity (AFMoE)", "afmoe", afmoe, afmoe_embedding),
    "mellum": Family("Mellum 2", "mellum", mellum),
}
