"""Policies that choose a part of the prompt and forget the rest: the dense model then reads what was kept.

A follow-up is answered from what was kept, since nothing else is there: its own tokens are all read.
"""

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from itertools import repeat

import mlx.core as mx
import numpy as np

from ...engine.model import Model
from .base import Policy, PolicyConversation, prefill_share
from .forward import Forward


@dataclass(frozen=True)
class Kept:
    """Which tokens of a prompt are read, and where.

    Attributes:
        tokens: places in the prompt, rising.
        positions: that they are read at.
        end: the position of what comes next.
        layers: of the model that choosing has run over the whole prompt.
        flops: operations that choosing has cost in another model.
    """

    tokens: np.ndarray
    positions: np.ndarray
    end: int
    layers: int = 0
    flops: float = 0.0


def in_place(tokens: np.ndarray, prompt: int, flops: float = 0.0) -> Kept:
    """Tokens that stay where they were in a prompt of this length."""
    return Kept(tokens, tokens, prompt, flops=flops)


def closed_up(tokens: np.ndarray, layers: int = 0) -> Kept:
    """Tokens that move together, as if they were the prompt."""
    return Kept(tokens, np.arange(len(tokens)), len(tokens), layers=layers)


class SubsetPolicy(Policy):
    """Implement `choose`."""

    def __init__(self, keep: float, point: str = ""):
        super().__init__(point or f"{keep:g}")
        self.keep = keep

    @classmethod
    def points(cls, options):
        return [cls(keep) for keep in options.keeps]

    @abstractmethod
    def choose(self, model: Model, tokens: list[int]) -> Kept:
        """What to keep of a prompt."""

    def begin(self, model, stop):
        return SubsetConversation(self, model, stop)


class SubsetConversation(PolicyConversation):
    """What was kept of the first prompt, and all that came after it."""

    def __init__(self, policy: SubsetPolicy, model: Model, stop: Collection[int]):
        super().__init__(stop)
        self.policy, self.model = policy, model
        self.forward = Forward(model)
        self.offset = 0  # position of the next token
        self.seen = 0  # tokens so far, kept or not
        self.token_layers = 0
        self._prefill_fraction = 0.0

    def read(self, tokens, tail):
        if self.seen:
            return self._append(mx.array(tokens))
        kept = self.policy.choose(self.model, tokens)
        N, n = len(tokens), len(self.model.layers)
        rows = [*repeat(N, kept.layers), *repeat(len(kept.tokens), n)]
        self._prefill_fraction = prefill_share(self.model, rows, N, kept.flops)
        self.seen, self.offset, self.token_layers = N, kept.end, sum(rows)
        return self.forward.logits(mx.array(np.array(tokens)[kept.tokens]), kept.positions)

    def step(self, token):
        return self._append(token)

    def _append(self, tokens: mx.array) -> mx.array:
        positions = np.arange(self.offset, self.offset + len(tokens))
        self.offset += len(tokens)
        self.seen += len(tokens)
        self.token_layers += len(tokens) * len(self.model.layers)
        return self.forward.logits(tokens, positions)

    def prefill_fraction(self):
        return self._prefill_fraction

    def computed_fraction(self):
        return self.token_layers / (self.seen * len(self.model.layers))


def pooled(scores: mx.array, width: int) -> mx.array:
    """Average pooling of the last axis with zeros beyond its ends, as `avg_pool1d` does it."""
    N, reach = scores.shape[-1], width // 2
    padded = mx.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(reach, reach)])
    return sum((padded[..., i : i + N] for i in range(1, width)), padded[..., :N]) / width
