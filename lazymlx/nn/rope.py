"""Rotary embedding at explicit positions.

mlx-lm's rope classes rotate a run of neighbours, given the offset of the first; the tokens of a stage are not
neighbours. They do take one offset per batch row, so the tokens are made to play the batch.
"""

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float, Integer
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE, SuScaledRoPE, YarnRoPE

Positions = int | Integer[mx.array, " L"]


def rotate(
    rope: nn.Module, x: Float[mx.array, "B H L D_h"], positions: Positions, context: int
) -> Float[mx.array, "B H L D_h"]:
    """Rotate queries or keys by their positions in the conversation.

    Args:
        rope: a rope of `mlx_lm.models.rope_utils`.
        positions: position of every token (then B is 1), or of the first one of a run.
        context: number of positions in the conversation so far; dynamic NTK scaling depends on it.
    """
    if isinstance(positions, int):
        return rope(x, offset=positions)
    by_token = x.transpose(2, 1, 0, 3)
    if isinstance(rope, DynamicNTKScalingRoPE):
        rotated = _dynamic_ntk(rope, by_token, positions, context)
    else:
        rotated = rope(by_token, offset=positions)
    return rotated.transpose(2, 1, 0, 3)


def shifted(rope: nn.Module, x: Float[mx.array, "B H L D_h"], by: int) -> Float[mx.array, "B H L D_h"]:
    """Rotated queries or keys, rotated on as if their tokens stood `by` positions further: rotations add up.

    Args:
        rope: none whose rotations depend on the context.
    """
    if by == 0:
        return x
    turned = rotate(rope, x, mx.full((x.shape[2],), by, mx.int32), 0)
    if isinstance(rope, SuScaledRoPE):
        return _scaled(turned, rope.dim, 1 / rope._scale)
    return _scaled(turned, rope.dims, 1 / rope.mscale) if isinstance(rope, YarnRoPE) else turned


def _scaled(x: mx.array, dims: int, scale: float) -> mx.array:
    """What a class scales beside rotating it was scaled the first time."""
    return x if scale == 1.0 else mx.concatenate([x[..., :dims] * scale, x[..., dims:]], axis=-1)


def _dynamic_ntk(rope: DynamicNTKScalingRoPE, x: mx.array, positions: mx.array, context: int) -> mx.array:
    """Its own call compares the offset with a number, which an array of offsets cannot do."""
    length = max(context, rope.max_position_embeddings)
    stretch = rope.factor * length / rope.max_position_embeddings - (rope.factor - 1)
    base = rope.base * stretch ** (rope.dims / (rope.dims - 2))
    return mx.fast.rope(x, rope.dims, traditional=rope.traditional, base=base, scale=1.0, offset=positions)
