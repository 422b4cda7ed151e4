"""Hunyuan (dense): queries and keys are normalised after they were rotated."""

from typing import Any

import mlx.core as mx

from ..attention import Attention, Rows, Variant
from .family import Family


def normed_after(attention: Attention, queries: mx.array, keys: mx.array, rows: Rows) -> tuple[mx.array, mx.array]:
    return attention["query_layernorm"](queries), attention["key_layernorm"](keys)


def hunyuan(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(turned=normed_after if args.use_qk_norm else None))


HUNYUAN = {"hunyuan_v1_dense": Family("Hunyuan (dense)", "hunyuan_v1_dense", hunyuan, swiglu=True)}
