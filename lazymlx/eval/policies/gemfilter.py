"""GemFilter."""

import mlx.core as mx
import numpy as np

from ...schedule import Cut
from .forward import Forward
from .subset import SubsetPolicy, closed_up, pooled

POOL = 5


class GemFilter(SubsetPolicy):
    """The first layers read everything, the last of them filters, and the model starts again with what is kept.

    Importance is the sum over heads of the last token's products with the keys, not yet a probability, averaged over
    five neighbours. What is kept moves together: new positions. The last token is always kept, because it asks.
    """

    name = "gemfilter"
    source = "Shi et al. 2024, GemFilter (arXiv 2409.17422); github.com/SalesforceAIResearch/GemFilter"

    def __init__(self, keep: float, layer: int):
        super().__init__(keep, point=f"{layer}:{keep:g}")
        self.layer = layer  # the first one that is not read in full; the one before it filters

    @classmethod
    def points(cls, options):
        return [cls(keep, options.layer) for keep in options.keeps]

    def choose(self, model, tokens):
        N = len(tokens)
        forward = Forward(model, self.layer)
        forward.read(mx.array(tokens), np.arange(N))
        keys = forward.keys(self.layer - 1).astype(mx.float32)
        query = forward.queries[-1][0, :, -1].astype(mx.float32)
        query = query.reshape(keys.shape[0], -1, keys.shape[2]).sum(axis=1, keepdims=True)  # heads that share keys
        scores = pooled((query @ keys.transpose(0, 2, 1)).sum(axis=(0, 1)), POOL)
        order = np.argsort(-np.array(scores), kind="stable")
        kept = np.union1d(order[: Cut(self.layer, self.keep).count(N)], [N - 1])
        return closed_up(kept, layers=self.layer)
