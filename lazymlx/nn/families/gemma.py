"""Gemma: scaled embeddings; 2 squeezes its logits into a range, 3 normalises heads and has windowed layers.

mlx-lm runs Gemma 2 with full attention in every layer (and StarCoder2 and Phi-3, which have windows too), so that is
what is served here.
"""

from typing import Any

import mlx.core as mx

from ..attention import Attention, Variant, heads_normed
from .family import Family, Linear


def scaled_embedding(args: Any, x: mx.array) -> mx.array:
    return x * args.hidden_size**0.5


def scaled_in_bfloat16(args: Any, x: mx.array) -> mx.array:
    """Gemma 3 was trained with the factor rounded to bfloat16."""
    return x * mx.array(args.hidden_size**0.5, mx.bfloat16).astype(x.dtype)


def capped(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(softcap=args.attn_logit_softcapping))


def capped_logits(args: Any, x: mx.array, project: Linear) -> mx.array:
    return mx.tanh(project(x) / args.final_logit_softcapping) * args.final_logit_softcapping


def mostly_windowed(args: Any, index: int, theirs: Any) -> Attention:
    windowed = (index + 1) % args.sliding_window_pattern != 0
    return Attention(args, theirs, Variant(project=heads_normed, window=args.sliding_window if windowed else None))


GEMMA = {
    "gemma": Family("Gemma 1", "gemma", embed=scaled_embedding),
    "gemma2": Family("Gemma 2", "gemma2", capped, scaled_embedding, capped_logits),
    "gemma3_text": Family("Gemma 3 (1B)", "gemma3_text", mostly_windowed, scaled_in_bfloat16),
}
