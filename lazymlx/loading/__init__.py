"""From a name to a model. Outside, use `load`."""

from .load import load

__all__ = ["load"]
