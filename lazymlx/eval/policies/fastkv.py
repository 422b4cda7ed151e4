"""FastKV's prefill."""

from ...config import LazyConfig
from .base import single_cut
from .engine import EnginePolicy

WINDOW, POOL = 8, 7


class FastKV(EnginePolicy):
    """Full context up to one layer; behind it the window and the tokens that it attends to, for good.

    Its second part, a smaller cache for decoding below that layer, is left out: it costs quality and no prefill.
    """

    name = "fastkv"
    source = "Jo et al. 2025, FastKV (arXiv 2502.01068)"

    @classmethod
    def points(cls, options):
        return [cls(cls._configure(options.layer, keep), point=f"{options.layer}:{keep:g}") for keep in options.keeps]

    @staticmethod
    def _configure(layer: int, keep: float) -> LazyConfig:
        return LazyConfig(
            single_cut(layer, keep),
            window=WINDOW,
            pool=POOL,
            links=0,
            lookahead=0,
            sink=0,
            recent=0,
            revive=0,
            min_tokens=0,
            round_to=1,
        )
