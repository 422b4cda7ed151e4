"""lazymlx: LazyLLM (arXiv 2407.14057) on MLX. A long prompt is computed only where the answer looks.

Public names are imported when they are first used, so that importing this package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import LazyConfig as LazyConfig
    from .config import Schedule as Schedule
    from .errors import LazyMLXError as LazyMLXError
    from .selection import Scorer as Scorer
    from .stats import LazyStats as LazyStats

__version__ = "0.1.0"
