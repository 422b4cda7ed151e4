"""Llama's layers under upstream's weight names, over tokens at arbitrary positions.

A layer knows nothing of stages or selection: it is given rows, their positions, a mask and the pool that holds the
keys and values of its earlier rows. It also returns its queries, from which a cut's importance is computed.
"""

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Bool, Float
from mlx_lm.models.activations import swiglu
from mlx_lm.models.llama import ModelArgs
from mlx_lm.models.rope_utils import initialize_rope

from .pools import KVPool, Span
from .rope import Positions, rotate

Mask = Bool[mx.array, "L S"] | str | None


class Attention(nn.Module):
    """Multi-head or grouped-query attention with rotary embedding."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        D, H, H_kv = (
            args.hidden_size,
            args.num_attention_heads,
            args.num_key_value_heads or args.num_attention_heads,
        )
        D_h = args.head_dim or D // H
        self.n_heads, self.n_kv_heads, self.head_dim, self.scale = H, H_kv, D_h, D_h**-0.5
        self.q_proj = nn.Linear(D, H * D_h, bias=args.attention_bias)
        self.k_proj = nn.Linear(D, H_kv * D_h, bias=args.attention_bias)
        self.v_proj = nn.Linear(D, H_kv * D_h, bias=args.attention_bias)
        self.o_proj = nn.Linear(H * D_h, D, bias=args.attention_bias)
        self.rope = initialize_rope(
            D_h, args.rope_theta, args.rope_traditional, args.rope_scaling, args.max_position_embeddings
        )

    def __call__(
        self,
        x: Float[mx.array, "B L D"],
        positions: Positions,
        mask: Mask,
        pool: KVPool | None,
        span: Span,
    ) -> tuple[Float[mx.array, "B L D"], Float[mx.array, "B H L D_h"]]:
        """Attention's output, and the rotated queries."""
        B, L, _ = x.shape
        queries = self.q_proj(x).reshape(B, L, self.n_heads, self.head_dim).transpose(0, 2, 1, 3)
        keys = self.k_proj(x).reshape(B, L, self.n_kv_heads, self.head_dim).transpose(0, 2, 1, 3)
        values = self.v_proj(x).reshape(B, L, self.n_kv_heads, self.head_dim).transpose(0, 2, 1, 3)
        queries = rotate(self.rope, queries, positions, span.context)
        keys = rotate(self.rope, keys, positions, span.context)
        if pool is not None:
            keys, values = pool.append(keys, values, span)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1)), queries


class MLP(nn.Module):
    """Gated feed-forward network."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        D, D_ff = args.hidden_size, args.intermediate_size
        self.gate_proj = nn.Linear(D, D_ff, bias=args.mlp_bias)
        self.down_proj = nn.Linear(D_ff, D, bias=args.mlp_bias)
        self.up_proj = nn.Linear(D, D_ff, bias=args.mlp_bias)

    def __call__(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L D"]:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(
        self,
        x: Float[mx.array, "B L D"],
        positions: Positions,
        mask: Mask,
        pool: KVPool | None,
        span: Span,
    ) -> tuple[Float[mx.array, "B L D"], Float[mx.array, "B H L D_h"]]:
        """The layer's output, and its queries."""
        attended, queries = self.self_attn(self.input_layernorm(x), positions, mask, pool, span)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), queries
