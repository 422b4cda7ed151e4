"""OLMo: queries and keys are normalised over all heads together; OLMo 3 has windowed layers."""

from typing import Any

from ..attention import Attention, Variant, all_normed
from .family import Family, listed_window


def all_heads_normed(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=all_normed))


def normed_listed(args: Any, index: int, theirs: Any) -> Attention:
    return Attention(args, theirs, Variant(project=all_normed, window=listed_window(args, index)))


OLMO = {
    "olmo2": Family("OLMo 2", "olmo2", all_heads_normed, swiglu=True),
    "olmo3": Family("OLMo 3", "olmo3", normed_listed, swiglu=True),
    "olmoe": Family("OLMoE", "olmoe", all_heads_normed),
}
