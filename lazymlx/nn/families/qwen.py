"""Qwen3 and others that normalise queries and keys, head by head."""

from typing import Any

from ..attention import Attention, Variant, heads_normed, separate
from .family import Family


def normed(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=heads_normed))


def maybe_normed(args: Any, index: int, theirs: Any) -> Attention:
    """Whether it normalises is up to the configuration."""
    return Attention(args, theirs, Variant(project=heads_normed if args.use_qk_norm else separate))


LIKE_QWEN3 = {
    "qwen3": Family("Qwen3", "qwen3", normed, block=True),
    "qwen3_moe": Family("Qwen3 MoE", "qwen3_moe", normed),
    "apertus": Family("Apertus", "apertus", normed),
    "dots1": Family("dots.llm1", "dots1", normed),
    "glm4_moe": Family("GLM 4.5, 4.6", "glm4_moe", maybe_normed),
    "Klear": Family("Klear", "Klear", normed),
    "solar_open": Family("Solar Open", "solar_open", maybe_normed),
}
