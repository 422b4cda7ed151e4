"""Which architectures are served: a file for what they have in common, one table for all, and why others are not.

To add a family, write a `Family` that says how it differs from Llama, and put it into the table.
"""

from typing import Any

from ...errors import ModelError
from .cohere import COHERE
from .exaone import EXAONE
from .experts import EXPERTS
from .family import Family
from .fused import FUSED
from .gemma import GEMMA
from .granite import GRANITE
from .hunyuan import HUNYUAN
from .llama import LIKE_LLAMA
from .ministral3 import MINISTRAL3
from .olmo import OLMO
from .qwen import LIKE_QWEN3
from .refused import reason
from .stablelm import STABLELM

__all__ = ["FAMILIES", "SEEING", "Family", "family_of", "table"]

FAMILIES: dict[str, Family] = {
    **LIKE_LLAMA,
    **LIKE_QWEN3,
    **COHERE,
    **EXAONE,
    **EXPERTS,
    **FUSED,
    **GEMMA,
    **GRANITE,
    **HUNYUAN,
    **MINISTRAL3,
    **OLMO,
    **STABLELM,
}

# Models that see: title, upstream's module, and their language model where the configuration does not name it.
SEEING: dict[str, tuple[str, str, str]] = {
    "gemma3": ("Gemma 3 (4B to 27B)", "gemma3", "gemma3_text"),
    "llava": ("LLaVA", "mistral3", "llama"),
    "mistral3": ("Mistral Small 3.1, 3.2, Ministral 3", "mistral3", "llama"),
    "pixtral": ("Pixtral", "pixtral", "llama"),
    "qwen2_vl": ("Qwen2-VL", "qwen2_vl", "qwen2"),
    "qwen2_5_vl": ("Qwen2.5-VL", "qwen2_vl", "qwen2"),
    "qwen3_vl": ("Qwen3-VL", "qwen3_vl", "qwen3"),
    "qwen3_vl_moe": ("Qwen3-VL MoE", "qwen3_vl_moe", "qwen3_moe"),
}


def family_of(kind: str | None, text_config: dict[str, Any] | None = None) -> Family:
    """The family of a `model_type`; of a model that sees, the one of its language model in its place.

    Raises:
        ModelError: it is not served.
    """
    if kind in FAMILIES:
        return FAMILIES[kind]
    if kind in SEEING:
        title, upstream, usual = SEEING[kind]
        named = (text_config or {}).get("model_type", usual)
        return family_of(named if named in FAMILIES or reason(named) else usual).as_language_model(title, upstream)
    why = reason(kind) if kind else None
    if why:
        raise ModelError(f"model: type {kind!r} is not supported: {why}")
    raise ModelError(f"model: type {kind!r} is not supported; supported are {', '.join(sorted({*FAMILIES, *SEEING}))}")


def table() -> str:
    """The architectures as a Markdown table, for the documentation."""
    rows = [(family.title, kind, "") for kind, family in FAMILIES.items()]
    rows += [(title, kind, "text only") for kind, (title, _, _) in SEEING.items()]
    lines = [f"| {title} | `{kind}` | {note} |" for title, kind, note in sorted(rows)]
    return "\n".join(["| Models | `model_type` | |", "| --- | --- | --- |", *lines])
