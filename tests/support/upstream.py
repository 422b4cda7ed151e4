"""mlx-lm's own classes of an architecture."""

import importlib
from typing import Any

from mlx_lm.utils import MODEL_REMAPPING


def classes_of(config: dict[str, Any]) -> tuple[type, type]:
    """The model, and its arguments."""
    kind = config["model_type"]
    module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")
    return module.Model, module.ModelArgs
