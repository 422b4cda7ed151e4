"""config.json: checked before upstream builds a model from it, and spelled as upstream reads it.

Upstream takes any value, and stumbles over a wrong one far from its cause, or not before the first prompt. Where newer
transformers have moved an entry (all those of the rotary embedding) it mostly does not look, and takes its default.
"""

import math
from typing import Any

from ..errors import ModelError

Entries = dict[str, Any]

NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MAYBE_NULL = ("intermediate_size", "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window")
POSITIVE = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "rope_theta")


def check_types(config: Entries) -> None:
    """Check what tells one architecture from another.

    Raises:
        ModelError: an entry is of the wrong type.
    """
    if not isinstance(config.get("model_type", ""), str | None):
        raise _wrong(config, "model_type", "text")
    for name in ("text_config", "rope_scaling", "rope_parameters"):
        if not isinstance(config.get(name), dict | None):
            raise _wrong(config, name, "an object")


def check_sizes(config: Entries) -> None:
    """Check the numbers that every architecture has; one that is absent is upstream's affair.

    Raises:
        ModelError: a size is no size, or the heads cannot share keys.
    """
    for name in NEEDED + MAYBE_NULL:
        value = config.get(name, 1)
        if (type(value) is not int or value < 1) and not (value is None and name in MAYBE_NULL):
            raise _wrong(config, name, "a whole number of at least 1")
    for name in POSITIVE:
        value = config.get(name, 1.0)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise _wrong(config, name, "a number above 0")
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        raise _wrong(config, "num_key_value_heads", f"a divisor of num_attention_heads, {heads}")


def max_positions(config: Entries) -> int | None:
    """How many positions the model was made for; None if it does not say."""
    name = "max_position_embeddings"
    return config.get(name) or (config.get("text_config") or {}).get(name)


def _wrong(config: Entries, name: str, expected: str) -> ModelError:
    return ModelError(
        f"model: {name} in config.json must be {expected}, got {config.get(name)!r}; is the file the checkpoint's own?"
    )


def respelled(config: Entries) -> Entries:
    """The entries that upstream looks for and that are elsewhere in a newer configuration."""
    text = config.get("text_config")
    if not text:
        return _moved(config)
    return {**_moved(config), "text_config": {**text, **_moved(text)}}


def _moved(config: Entries) -> Entries:
    """From `rope_parameters`, of the whole model or by kind of layer (Gemma 3, OLMo 3), and from Qwen3 MoE's new name
    for its experts: what is not said otherwise."""
    given = config.get("rope_parameters") or {}
    full, sliding = given.get("full_attention", given), given.get("sliding_attention", {})
    kind = full.get("rope_type", full.get("type", "default"))
    found = {
        "rope_theta": full.get("rope_theta"),
        "rope_scaling": None if kind == "default" else {**full, "type": kind},
        "partial_rotary_factor": full.get("partial_rotary_factor"),
        "original_max_position_embeddings": full.get("original_max_position_embeddings"),
        "rope_local_base_freq": sliding.get("rope_theta"),
        "num_experts": config.get("num_local_experts"),
    }
    return {name: value for name, value in found.items() if value is not None and config.get(name) is None}
