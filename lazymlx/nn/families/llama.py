"""Llama, and the architectures whose attention is Llama's: they differ in biases, norms and feed-forwards alone."""

from typing import Any

from ..attention import Attention, Variant
from .family import Family, listed_window


def listed(args: Any, index: int, theirs: Any) -> Attention:
    """Attention whose configuration lists which layers see a window only."""
    return Attention(args, theirs, Variant(window=listed_window(args, index)))


def everywhere(args: Any, index: int, theirs: Any) -> Attention:
    """Mistral 7B v0.1 has one window for all layers and lists none; upstream's layers then see everything. A window as
    wide as the longest context, as of Ministral 8B, is none."""
    if "sliding_attention" in args.layer_types:
        return listed(args, index, theirs)
    window = args.sliding_window
    hides = window is not None and window < (args.max_position_embeddings or window + 1)
    return Attention(args, theirs, Variant(window=window if hides else None))


LLAMA = Family("Llama 2, 3, 3.1, 3.2, 3.3, Yi, SmolLM2", "llama", listed, block=True)

LIKE_LLAMA = {
    "llama": LLAMA,
    "mistral": Family("Mistral, Ministral 8B, Mistral Nemo", "llama", everywhere, block=True),
    "xverse": Family("Xverse", "llama", listed, block=True),
    "iquestcoder": Family("IQuest Coder", "llama", listed, block=True),
    "deepseek": Family("DeepSeek MoE", "deepseek"),
    "ernie4_5": Family("ERNIE 4.5", "ernie4_5", block=True),
    "ernie4_5_moe": Family("ERNIE 4.5 MoE", "ernie4_5_moe"),
    "glm": Family("GLM 4 (9B chat)", "glm"),
    "glm4": Family("GLM 4 (0414)", "glm4"),
    "helium": Family("Helium", "helium", block=True),
    "internlm3": Family("InternLM3", "internlm3", block=True),
    "mimo": Family("MiMo", "mimo", block=True),
    "mixtral": Family("Mixtral", "mixtral"),
    "nemotron": Family("Nemotron 4, Minitron", "nemotron"),
    "phimoe": Family("Phi-3.5 MoE", "phimoe"),
    "qwen2": Family("Qwen2, Qwen2.5", "qwen2", block=True),
    "qwen2_moe": Family("Qwen1.5 MoE, Qwen2 MoE", "qwen2_moe"),
    "seed_oss": Family("Seed-OSS", "seed_oss", block=True),
    "smollm3": Family("SmolLM3", "smollm3", block=True),
    "starcoder2": Family("StarCoder2", "starcoder2"),
    "telechat3": Family("TeleChat3", "telechat3", block=True),
}
