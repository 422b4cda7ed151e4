"""Policies that choose a part of the prompt and forget the rest: the dense model then reads what was kept.

`Rows` is a model over tokens at any rising positions; `SubsetPolicy` asks a policy which ones. A follow-up is answered
from what was kept, since nothing else is there: its own tokens are all read.
"""

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx_lm.models.llama import ModelArgs

from ...model import Model
from ...pools import StageCache
from .base import STEP_SIZE, Conversation, Policy


class Rows:
    """The keys and values of a model's first layers (all, if not said otherwise), for tokens at rising positions."""

    def __init__(self, model: Model, layers: int | None = None):
        self.model = model
        self.layers = model.layers[:layers]
        self.stage = StageCache(len(self.layers))
        self.queries: list[mx.array] = []  # of the newest rows, a layer each

    def run(self, tokens: mx.array, positions: np.ndarray) -> mx.array:
        """Take in tokens; the last layer's output, `(1, L, D)`, of the newest `STEP_SIZE` of them at most."""
        chunks = range(0, len(positions), STEP_SIZE)
        for start in chunks:
            rows = slice(start, start + STEP_SIZE)
            x = self._run(tokens[rows], positions[rows])
            if start != chunks[-1]:
                mx.eval(x)
        return x

    def _run(self, tokens: mx.array, positions: np.ndarray) -> mx.array:
        first, last = int(positions[0]), int(positions[-1])
        in_a_row = last - first + 1 == len(positions)
        at = mx.array(positions.astype(np.int32))
        span = self.stage.append(at, last + 1, bounds=(first, last))
        x = self.model.model.embed_tokens(tokens)[None]
        self.queries = []
        for layer, pool in zip(self.layers, self.stage.pools, strict=True):
            mask = "causal" if len(positions) > 1 else None
            x, queries = layer(x, first if in_a_row else at, mask, pool, span)
            self.queries.append(queries)
        return x

    def logits(self, tokens: mx.array, positions: np.ndarray) -> mx.array:
        """Take in tokens; logits of the last one, `(1, 1, V)`."""
        return self.model._head(self.run(tokens, positions)[:, -1:])


@dataclass(frozen=True)
class Kept:
    """Which tokens of a prompt are read, and where.

    Attributes:
        tokens: places in the prompt, rising.
        positions: that they are read at.
        end: the position of what comes next.
        spent: token-layers of the model that choosing has cost, as a share of reading the whole prompt.
    """

    tokens: np.ndarray
    positions: np.ndarray
    end: int
    spent: float = 0.0

    @classmethod
    def in_place(cls, tokens: np.ndarray, prompt: int, spent: float = 0.0) -> "Kept":
        """Tokens that stay where they were in a prompt of this length."""
        return cls(tokens, tokens, prompt, spent)


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


class SubsetConversation(Conversation):
    """What was kept of the first prompt, and all that came after it."""

    def __init__(self, policy: SubsetPolicy, model: Model, stop: Collection[int]):
        super().__init__(stop)
        self.policy, self.model = policy, model
        self.rows = Rows(model)
        self.offset = 0  # position of the next token
        self.seen = 0  # tokens so far, kept or not
        self.prompt = 0
        self.spent = 0.0

    def read(self, tokens, tail):
        if self.seen:
            return self._append(mx.array(tokens))
        kept = self.policy.choose(self.model, tokens)
        self.prompt = self.seen = len(tokens)
        self.spent = kept.spent + len(kept.tokens) / len(tokens)
        self.offset = kept.end
        return self.rows.logits(mx.array(np.array(tokens)[kept.tokens]), kept.positions)

    def step(self, token):
        return self._append(token)

    def _append(self, tokens: mx.array) -> mx.array:
        positions = np.arange(self.offset, self.offset + len(tokens))
        self.offset += len(tokens)
        self.seen += len(tokens)
        return self.rows.logits(tokens, positions)

    def prefill_fraction(self):
        return self.spent

    def computed_fraction(self):
        return (self.spent * self.prompt + self.seen - self.prompt) / self.seen


def pooled(scores: mx.array, width: int) -> mx.array:
    """Average pooling of the last axis with zeros beyond its ends, as `avg_pool1d` does it."""
    N, reach = scores.shape[-1], width // 2
    padded = mx.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(reach, reach)])
    return sum((padded[..., i : i + N] for i in range(1, width)), padded[..., :N]) / width


def weights_per_layer(args: ModelArgs) -> int:
    """Parameters of a layer's matrices: what a token-layer costs in one model, beside another's."""
    D, H = args.hidden_size, args.num_attention_heads
    H_kv = args.num_key_value_heads or H
    D_h = args.head_dim or D // H
    return 2 * D * D_h * (H + H_kv) + 3 * D * args.intermediate_size
