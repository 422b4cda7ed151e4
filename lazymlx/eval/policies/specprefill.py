"""SpecPrefill."""

import math

import mlx.core as mx
import numpy as np

from ...costs.flops import Sizes, prefill_flops
from ...engine.model import Model
from ...engine.selection import attention
from .forward import Forward
from .subset import SubsetPolicy, in_place, pooled

LOOK_AHEAD = 8
POOL = 13
CHUNK = 32


class SpecPrefill(SubsetPolicy):
    """A draft model reads the prompt and answers a few tokens; what it attends to is what the model reads.

    Its attention is averaged over 13 neighbours, the highest of all layers and heads counts, and the look-ahead tokens'
    mean. The best chunks of 32 tokens are read at their own positions, and the last chunk always, because it asks.
    The draft looks ahead greedily.
    """

    name = "specprefill"
    source = "Liu et al. 2025, SpecPrefill (arXiv 2502.02789); github.com/Jingyu6/speculative_prefill"
    needs_draft = True

    def __init__(self, keep: float, draft: Model):
        super().__init__(keep)
        self.draft = draft

    @classmethod
    def points(cls, options):
        return [cls(keep, options.draft) for keep in options.keeps]

    def choose(self, model, tokens):
        N = len(tokens)
        importance = np.array(self.importance(tokens))
        edges = np.arange(0, N, CHUNK)
        means = np.add.reduceat(importance, edges) / np.diff(np.append(edges, N))
        best = np.argsort(-means, kind="stable")[: math.ceil(round(self.keep * len(edges), 6))]
        chosen = np.union1d(best, [len(edges) - 1])
        places = np.arange(N)
        kept = places[np.isin(places // CHUNK, chosen)]
        return in_place(kept, N, flops=self._flops(N))

    def importance(self, tokens: list[int]) -> mx.array:
        """One importance per token."""
        N, forward = len(tokens), Forward(self.draft)
        logits = forward.logits(mx.array(tokens), np.arange(N))
        looks = []
        for position in range(N, N + LOOK_AHEAD):
            logits = forward.logits(logits.argmax(axis=-1), np.array([position]))
            looks.append(forward.queries)
        seen = []
        for number, layer in enumerate(forward.layers):
            theirs = self.draft.family.attention_of(layer)
            queries = mx.concatenate([look[number][0] for look in looks], axis=1)  # H, look-ahead, D_h
            keys = forward.keys(number)[:, :N]
            weights = attention(queries * theirs.scale, keys, None, theirs.softcap, theirs.sinks)
            seen.append(pooled(weights, POOL).max(axis=0))
        return mx.stack(seen).max(axis=0).mean(axis=0)

    def _flops(self, N: int) -> float:
        """What the draft costs."""
        sizes = Sizes.of(self.draft.family.core(self.draft).args)
        return 0.0 if sizes is None else prefill_flops(sizes, [N + LOOK_AHEAD] * sizes.layers)
