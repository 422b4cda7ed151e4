"""Granite and MiniCPM: multipliers on embeddings and logits (those inside of a layer are the layer's affair)."""

from typing import Any

import mlx.core as mx

from .family import Family, Linear, plain


def multiplied(args: Any, x: mx.array) -> mx.array:
    return x * args.embedding_multiplier


def divided(args: Any, x: mx.array, project: Linear) -> mx.array:
    return project(x) / args.logits_scaling


def minicpm_embedding(args: Any, x: mx.array) -> mx.array:
    return x * args.scale_emb


def minicpm_logits(args: Any, x: mx.array, project: Linear) -> mx.array:
    return project(x if args.tie_word_embeddings else x / (args.hidden_size / args.dim_model_base))


GRANITE = {
    "granite": Family("Granite 3", "granite", plain, multiplied, divided, swiglu=True),
    "granitemoe": Family("Granite 3 MoE", "granitemoe", plain, multiplied, divided),
    "minicpm": Family("MiniCPM", "minicpm", plain, minicpm_embedding, minicpm_logits, swiglu=True),
}
