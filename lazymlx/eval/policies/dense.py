"""The plain model."""

from ...config import LazyConfig
from .engine import EnginePolicy


class Dense(EnginePolicy):
    """Every token through every layer: what the others are compared with."""

    name = "dense"
    source = "the model as it is"

    @classmethod
    def points(cls, options):
        return [cls(LazyConfig.dense(), point="")]
