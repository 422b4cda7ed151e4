"""lazymlx and its rivals, for comparison: one small file each, all behind `Policy`."""

from .base import Forced, Options, Policy, PolicyAnswer, PolicyConversation
from .dense import Dense
from .fastkv import FastKV
from .gemfilter import GemFilter
from .lazy import Lazy
from .lazyllm import LazyLLM
from .lexical import Lexical
from .random_drop import RandomDrop
from .specprefill import SpecPrefill
from .static import Static

KINDS: tuple[type[Policy], ...] = (
    Dense,
    Lazy,
    LazyLLM,
    Static,
    RandomDrop,
    GemFilter,
    FastKV,
    SpecPrefill,
    Lexical,
)
POLICIES: dict[str, type[Policy]] = {kind.name: kind for kind in KINDS}

__all__ = ["POLICIES", "PolicyAnswer", "PolicyConversation", "Forced", "Options", "Policy"]
