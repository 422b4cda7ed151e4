"""lazymlx: LazyLLM (arXiv 2407.14057) on MLX. A long prompt is computed only where the answer looks.

Public names are imported when they are first used, so that importing this package costs nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import demo, errors, explain
    from .config import LazyConfig
    from .costs.memory import estimate_memory
    from .documents import read_document
    from .engine.selection import Scorer, attention
    from .errors import LazyMLXError
    from .generation import generate, stream_generate
    from .loading.load import load
    from .prefill import cache_for
    from .progress import Progress
    from .schedule import Schedule
    from .session.session import Session
    from .stats import LazyStats

__version__ = "0.1.0"

_HOME = {
    "LazyConfig": "config",
    "LazyMLXError": "errors",
    "LazyStats": "stats",
    "Progress": "progress",
    "Schedule": "schedule",
    "Scorer": "engine.selection",
    "Session": "session.session",
    "attention": "engine.selection",
    "cache_for": "prefill",
    "estimate_memory": "costs.memory",
    "generate": "generation",
    "load": "loading.load",
    "read_document": "documents",
    "stream_generate": "generation",
}

_MODULES = ("demo", "errors", "explain")  # public as they are

__all__ = [
    "LazyConfig",
    "LazyMLXError",
    "LazyStats",
    "Progress",
    "Schedule",
    "Scorer",
    "Session",
    "__version__",
    "attention",
    "cache_for",
    "demo",
    "errors",
    "estimate_memory",
    "explain",
    "generate",
    "load",
    "read_document",
    "stream_generate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """A package whose public names win over submodules of the same name.

    `lazymlx.generate` is a function, and also the module behind `python -m lazymlx.generate`. Importing a submodule
    binds it to its package; that would hide the function, from then on, from whoever asks for it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
