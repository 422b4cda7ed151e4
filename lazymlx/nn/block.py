"""Llama's layer, of upstream's parts: what attention and feed-forward return is added within their last products.

A sum of its own is a kernel that reads two rows and writes one, twice a layer: what that costs is in the log of
2026-11-26, "sums within products". Where tokens come back, a layer takes fifteen kernels then, and not seventeen.
"""

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float

from ..cache.masks import Mask
from .attention import Rows
from .merged import SwiGLU


class Block(nn.Module):
    """A layer.

    Args:
        theirs: upstream's, with our attention in it; its parts become this one's.
    """

    def __init__(self, theirs: nn.Module):
        super().__init__()
        for name, part in theirs.items():
            self[name] = part
        self["mlp"] = SwiGLU(self["mlp"])

    def __call__(
        self, x: Float[mx.array, "B L D"], mask: Mask = None, cache: Rows | None = None
    ) -> Float[mx.array, "B L D"]:
        x = self["self_attn"](self["input_layernorm"](x), mask, cache, onto=x)
        return self["mlp"](self["post_attention_layernorm"](x), onto=x)
