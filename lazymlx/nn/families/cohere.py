"""Cohere: logits are scaled; the newer one has windowed layers, and no positions in the others."""

from typing import Any

import mlx.core as mx

from ..attention import Attention, Variant
from .family import Family, Linear, maybe_normed


def windowed_or_nope(args: Any, index: int, theirs: Any) -> Attention:
    """float16 is too narrow for its logits, upstream found."""
    if theirs.use_sliding_window:
        return Attention(args, theirs, Variant(window=args.sliding_window, precise=(mx.float16,)))
    return Attention(args, theirs, Variant(rope=None, precise=(mx.float16,)))


def scaled_logits(args: Any, x: mx.array, project: Linear) -> mx.array:
    return project(x) * args.logit_scale


COHERE = {
    "cohere": Family("Command R", "cohere", maybe_normed, swiglu=True, logits=scaled_logits),
    "cohere2": Family("Command R7B, Command A", "cohere2", windowed_or_nope, swiglu=True, logits=scaled_logits),
}
