"""Tiny random models of every family, built by mlx-lm's own classes, and the same weights in ours."""

from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from upstream import classes_of

from lazymlx.engine.model import Model

LAYERS = 6
WINDOW = 8  # tokens that a windowed layer sees, far less than a conversation
VOCAB = 64

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "sliding_window": WINDOW,
    "attention_bias": False,
    "mlp_bias": False,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
    "use_qk_norm": True,
}
HYBRID = ["sliding_attention", "sliding_attention", "full_attention"] * (LAYERS // 3)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"type": "longrope", "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.0]}

# What a family's configuration says beyond BASE; a name may be followed by what is particular to a variant.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied, biased": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama, 3.1": {"rope_scaling": LLAMA3},
    "llama, yarn": {"rope_scaling": YARN},
    "llama, windows": {"layer_types": HYBRID},
    "mistral": {"head_dim": 16, "sliding_window": None},
    "xverse": {},
    "iquestcoder": {},
    "deepseek": {"moe_layer_freq": 1},
    "ernie4_5": {"use_bias": True},
    "ernie4_5_moe": {
        "use_bias": True,
        "moe_num_experts": 4,
        "moe_layer_start_index": 1,
        "moe_k": 2,
        "moe_layer_interval": 1,
        "moe_num_shared_experts": 1,
        "moe_use_aux_free": True,
    },
    "glm": {"attention_bias": True},
    "glm4": {"attention_bias": True, "partial_rotary_factor": 0.5, "rope_traditional": True},
    "helium": {},
    "internlm3": {"bias": True, "qkv_bias": True, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "mimo": {},
    "mixtral": {},
    "nemotron": {"hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    "phimoe": {"original_max_position_embeddings": 16},
    "qwen2": {},
    "qwen2_moe": {},
    "seed_oss": {"attention_bias": True, "attention_out_bias": True, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "smollm3": {"no_rope_layer_interval": 3},
    "starcoder2": {"norm_epsilon": 1e-5},
    "telechat3": {"rope_scaling": YARN},
    "qwen3": {},
    "qwen3, tied": {"tie_word_embeddings": True},
    "qwen3_moe": {"decoder_sparse_step": 1, "mlp_only_layers": [0]},
    "apertus": {"hidden_act": "xielu", "post_norm": False, "qk_norm": True, "rope_traditional": False},
    "dots1": {"n_shared_experts": 1},
    "glm4_moe": {"partial_rotary_factor": 0.5},
    "Klear": {"decoder_sparse_step": 1, "mlp_only_layers": [0], "kv_lora_rank": None},
    "solar_open": {"partial_rotary_factor": 0.5, "use_qk_norm": False},
    "cohere": {"use_qk_norm": True, "attention_bias": True, "layer_norm_bias": True},
    "cohere, plain": {"use_qk_norm": False},
    "cohere2": {"sliding_window_pattern": 3},
    "exaone": {"num_layers": LAYERS, "layer_norm_epsilon": 1e-5},
    "exaone4": {"sliding_window_pattern": "LLG"},
    "exaone4, no windows": {"sliding_window_pattern": None, "sliding_window": None, "rope_scaling": LLAMA3},
    "exaone_moe": {"layer_types": HYBRID, "is_moe_layer": [False] + [True] * (LAYERS - 1)},
    "phi3": {"rope_scaling": None},
    "phi3, longrope": {
        "rope_scaling": LONGROPE,
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 16,
        "tie_word_embeddings": True,
    },
    "internlm2": {"bias": True},
    "bailing_moe": {
        "use_bias": True,
        "use_qkv_bias": True,
        "norm_head": False,
        "norm_softmax": False,
        "rope_traditional": False,
        "max_window_layers": 0,
    },
    "gemma": {},
    "gemma2": {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 12},
    "gemma3_text": {"sliding_window_pattern": 3, "query_pre_attn_scalar": 12},
    "granite": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 3.0,
    },
    "granitemoe": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 3.0,
    },
    "minicpm": {"dim_model_base": 16, "scale_depth": 1.4, "scale_emb": 2.0},
    "hunyuan_v1_dense": {"rope_scaling": {"alpha": 10.0, "factor": 1.0, "type": "dynamic"}},
    "ministral3": {
        "rope_parameters": {**YARN, "rope_theta": 10000.0, "llama_4_scaling_beta": 0.5},
        "layer_types": HYBRID,
    },
    "olmo2": {},
    "olmo3": {"layer_types": HYBRID, "rope_scaling": YARN},
    "olmoe": {},
    "stablelm": {"use_qkv_bias": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "qk_layernorm": True},
    "stablelm, parallel": {
        "use_qkv_bias": True,
        "partial_rotary_factor": 0.5,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
    },
    "gpt_oss": {"layer_types": HYBRID, "rope_scaling": YARN},
    "afmoe": {"layer_types": HYBRID, "num_dense_layers": 1},
    "mellum": {
        "layer_types": HYBRID,
        "rope_parameters": {"full_attention": {**YARN, "rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}},
    },
}
SEEING: dict[str, dict[str, Any]] = {
    "gemma3": {"vocab_size": VOCAB, "text_config": CONFIGS["gemma3_text"]},
    "llava": {"text_config": {}},
    "mistral3": {"text_config": {"model_type": "ministral3", **CONFIGS["ministral3"]}},
    "pixtral": {"text_config": {}},
    "qwen2_vl": {"text_config": {}},
    "qwen2_5_vl": {"text_config": {}},
    "qwen3_vl": {"text_config": {}},
    "qwen3_vl_moe": {"text_config": CONFIGS["qwen3_moe"]},
}


def configuration(name: str) -> dict[str, Any]:
    kind = name.split(",")[0]
    if kind in SEEING:
        given = SEEING[kind]
        text = {**BASE, "model_type": kind, **given["text_config"]}
        return {**given, "model_type": kind, "text_config": text}
    return {**BASE, "model_type": kind, **CONFIGS[name]}


@cache
def pair(name: str) -> tuple[nn.Module, Model]:
    """mlx-lm's model with random weights, large enough for peaked attention, and ours with the same."""
    config = configuration(name)
    their_class, args_class = classes_of(config)
    theirs = their_class(args_class.from_dict(config))
    rng = np.random.default_rng(0)
    weights = {
        path: mx.array(rng.normal(1.0 if path.split(".")[-2:][0].endswith("norm") else 0.0, 0.3, size=w.shape))
        for path, w in sorted(tree_flatten(theirs.parameters()))
    }
    theirs.load_weights(list(weights.items()))
    ours = Model(args_class.from_dict(config))
    ours.load_weights(list(weights.items()))
    ours.join()
    theirs.eval()
    ours.eval()
    return theirs, ours


__all__ = ["CONFIGS", "LAYERS", "SEEING", "VOCAB", "WINDOW", "configuration", "pair"]
