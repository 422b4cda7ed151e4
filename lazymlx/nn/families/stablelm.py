"""StableLM: a norm for each head, partial rotary embedding, logits in float32."""

from typing import Any

import mlx.core as mx
from jaxtyping import Float

from ..attention import Attention, ByHead, Variant, separate
from .family import Family


def each_head_normed(attention: Attention, x: Float[mx.array, "B L D"]) -> ByHead:
    queries, keys, values = separate(attention, x)
    return attention["q_layernorm"](queries), attention["k_layernorm"](keys), values


def stablelm(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(
        args,
        theirs,
        Variant(
            scale=theirs.head_dim**-0.5,
            project=each_head_normed if args.qk_layernorm else separate,
            precise=(mx.float16, mx.bfloat16),
        ),
    )


STABLELM = {"stablelm": Family("StableLM 2", "stablelm", stablelm, swiglu=True)}
