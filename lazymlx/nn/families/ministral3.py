"""Ministral 3: queries grow with their position, slowly, beyond the length of pretraining."""

from typing import Any

import mlx.core as mx

from ...cache.masks import Mask
from ..attention import Attention, Rows, Turned, Variant
from .family import Family, listed_window


class WithScale(Attention):
    """Upstream's layers hand on a scale for neighbours; ours is taken from the rows' true positions."""

    def __call__(self, x: mx.array, attn_scale: None = None, mask: Mask = None, cache: Rows | None = None) -> mx.array:
        return super().__call__(x, mask, cache)


def grown_by(beta: float, length: int) -> Turned:
    def turned(attention: Attention, queries: mx.array, keys: mx.array, rows: Rows) -> tuple[mx.array, mx.array]:
        factor = 1 + beta * mx.log(1 + mx.floor(rows.at(queries.shape[2]) / length))
        return queries * factor[:, None].astype(queries.dtype), keys

    return turned


def ministral3(args: Any, index: int, theirs: Any) -> Attention:
    rope = args.rope_parameters
    grown = grown_by(rope["llama_4_scaling_beta"], rope["original_max_position_embeddings"])
    return WithScale(args, theirs, Variant(turned=grown, window=listed_window(args, index)))


MINISTRAL3 = {"ministral3": Family("Ministral 3", "ministral3", ministral3, swiglu=True)}
