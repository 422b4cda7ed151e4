"""Configurations of well-known models, by name. Speed depends on a model's shape, not on what its weights say."""

from typing import Any

from ..errors import UsageError
from ..nn.families import family_of


def _llama(layers: int, D: int, D_ff: int, heads: tuple[int, int], vocab: int, **others: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": D,
        "intermediate_size": D_ff,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **others,
    }


QWEN3 = {"model_type": "qwen3", "head_dim": 128, "rope_theta": 1000000.0, "max_position_embeddings": 40960}

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": _llama(32, 4096, 11008, (32, 32), 32000),
    "llama-2-13b": _llama(40, 5120, 13824, (40, 40), 32000),
    "llama-3-8b": _llama(32, 4096, 14336, (32, 8), 128256, rope_theta=500000.0),
    "llama-3-70b": _llama(80, 8192, 28672, (64, 8), 128256, rope_theta=500000.0),
    "llama-3.2-1b": _llama(16, 2048, 8192, (32, 8), 128256, head_dim=64, rope_theta=500000.0, tie_word_embeddings=True),
    "llama-3.2-3b": _llama(28, 3072, 8192, (24, 8), 128256, rope_theta=500000.0, tie_word_embeddings=True),
    "mistral-7b": _llama(32, 4096, 14336, (32, 8), 32768, rope_theta=1000000.0),
    "qwen3-4b": _llama(36, 2560, 9728, (32, 8), 151936, **QWEN3, tie_word_embeddings=True),
    "qwen3-8b": _llama(36, 4096, 12288, (32, 8), 151936, **QWEN3),
    "demo-12x384": _llama(12, 384, 1024, (6, 2), 8192, head_dim=64, rope_theta=500000.0, tie_word_embeddings=True),
    "tiny-4x64": _llama(4, 64, 128, (4, 2), 128, tie_word_embeddings=True),  # for tests
}


def shape_args(name: str) -> Any:
    """The configuration of a named shape.

    Raises:
        UsageError: there is none of this name; the message lists them.
    """
    if name not in SHAPES:
        raise UsageError(f"shape: expected one of {', '.join(SHAPES)}; got {name!r}")
    config = SHAPES[name]
    return family_of(config["model_type"]).module.ModelArgs.from_dict(config)
