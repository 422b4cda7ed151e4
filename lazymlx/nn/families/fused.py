"""Queries, keys and values from one projection: Phi-3, InternLM2, Ling."""

from typing import Any

import mlx.core as mx
from jaxtyping import Float

from ..attention import Attention, ByHead, Variant, fused
from .family import Family, Places


def phi3(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=fused("qkv_proj")))


def grouped(attention: Attention, x: Float[mx.array, "B L D"]) -> ByHead:
    """InternLM2 lays out its rows by group: the queries that share a key, the key, the value."""
    B, L, _ = x.shape
    shared = attention.heads // attention.kv_heads
    rows = attention["wqkv"](x).reshape(B, L, attention.kv_heads, shared + 2, -1)
    return rows[..., :shared, :].reshape(B, L, attention.heads, -1), rows[..., -2, :], rows[..., -1, :]


def internlm2(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=grouped, output="wo"))


def ling_normed(attention: Attention, x: Float[mx.array, "B L D"]) -> ByHead:
    queries, keys, values = fused("query_key_value")(attention, x)
    return attention["query_layernorm"](queries), attention["key_layernorm"](keys), values


def ling(args: Any, index: int, theirs: Any) -> Attention:
    project = ling_normed if args.use_qk_norm else fused("query_key_value")
    return Attention(args, theirs, Variant(project=project, output="dense"))


FUSED = {
    "phi3": Family("Phi-3, Phi-3.5, Phi-4, Phi-4-mini", "phi3", phi3),
    "internlm2": Family(
        "InternLM2, InternLM2.5",
        "internlm2",
        internlm2,
        places=Places(embedding="tok_embeddings", attention="attention", head="output"),
    ),
    "bailing_moe": Family(
        "Ling, Ling Coder",
        "bailing_moe",
        ling,
        places=Places(embedding="word_embeddings", attention="attention"),
    ),
}
