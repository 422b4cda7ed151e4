"""Qwen3 and others that normalise queries and keys, head by head."""

from typing import Any

from ..attention import Attention, Variant, heads_normed
from .family import Family, maybe_normed


def normed(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=heads_normed))


LIKE_QWEN3 = {
    "qwen3": Family("Qwen3", "qwen3", normed, block=True),
    "qwen3_moe": Family("Qwen3 MoE", "qwen3_moe", normed),
    "apertus": Family("Apertus", "apertus", normed),
    "dots1": Family("dots.llm1", "dots1", normed),
    "glm4_moe": Family("GLM 4.5, 4.6", "glm4_moe", maybe_normed),
    "Klear": Family("Klear", "Klear", normed),
    "solar_open": Family("Solar Open", "solar_open", maybe_normed),
}
