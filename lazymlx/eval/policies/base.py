"""What a policy is: how to read a prompt and answer it. The loop is here, and the same for all, so that times compare.

A `Policy` begins a `PolicyConversation`, which reads prompts, makes one token of another, and accounts for its work.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar

import mlx.core as mx
from jaxtyping import Float, Integer
from mlx_lm.generate import generation_stream
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...config import LazyConfig
from ...costs.flops import Sizes, prefill_flops
from ...engine.model import Model
from ...generation import to_int
from ...schedule import Cut, Schedule


@dataclass(frozen=True)
class PolicyAnswer:
    """An answer and what it cost.

    Attributes:
        tokens: without the one that ended it.
        ttft_s: seconds from the prompt's tokens to the first token of the answer, choosing and drafts included.
        total_s: seconds to the last one.
        prefill_fraction: operations of the conversation's first prefill as a share of the dense one's, see
            `prefill_share`; drafts and passes that only choose are in it.
        computed_fraction: token-layers of the model computed so far, as a share of the dense one's for all tokens.
        end: the token that ended it, if it came.
        nats: of each token and of the one that ended it, minus the logarithm of its probability.
    """

    tokens: tuple[int, ...]
    ttft_s: float
    total_s: float
    prefill_fraction: float
    computed_fraction: float
    end: int | None = None
    nats: tuple[float, ...] = ()

    @property
    def with_end(self) -> tuple[int, ...]:
        """With the token that ended it: when to stop is part of an answer."""
        return self.tokens if self.end is None else (*self.tokens, self.end)


@dataclass(frozen=True)
class Forced:
    """What a policy thought of an answer that it was given token by token (teacher forcing).

    Attributes:
        nats: of each token, minus the logarithm of its probability.
        said: in the place of each, the token that the policy would have gone on with.
        answer: the one that was given, with what it cost to take in. Where the policy would have gone on with each of
            its tokens, it is the policy's own.
    """

    nats: tuple[float, ...]
    said: tuple[int, ...]
    answer: PolicyAnswer


class PolicyConversation(ABC):
    """A prompt and its follow-ups under one policy."""

    def __init__(self, stop: Collection[int]):
        self.stop = frozenset(stop)
        self._unread: list[int] = []  # generated, but not in the cache
        self._ended: int | None = None  # the stop token of the last answer, if it came

    @abstractmethod
    def read(self, tokens: list[int], tail: int) -> Float[mx.array, "1 V"]:
        """Take in a prompt, whose last `tail` tokens are the chat template's; the last token's logits."""

    @abstractmethod
    def step(self, token: Integer[mx.array, " 1"]) -> Float[mx.array, "1 V"]:
        """Take in a generated token; its logits."""

    @abstractmethod
    def prefill_fraction(self) -> float:
        """See `PolicyAnswer`."""

    @abstractmethod
    def computed_fraction(self) -> float:
        """See `PolicyAnswer`."""

    def ask(self, tokens: list[int], max_tokens: int, tail: int = 0) -> PolicyAnswer:
        """Read a prompt or a follow-up and answer it greedily."""
        with mx.stream(generation_stream):
            answer, last, nats, ttft_s, total_s = self._answer(self._to_read(tokens), max_tokens, tail)
        self._ended = last if last in self.stop else None
        fractions = self.prefill_fraction(), self.computed_fraction()
        return PolicyAnswer(tuple(answer), ttft_s, total_s, *fractions, end=self._ended, nats=nats)

    def force(self, tokens: list[int], answer: Sequence[int], tail: int = 0) -> Forced:
        """Read a prompt or a follow-up, and take in an answer as if it were one's own: at least one token."""
        with mx.stream(generation_stream):
            nats, said, ttft_s, total_s = self._force(self._to_read(tokens), answer, tail)
        self._unread = [answer[-1]]
        self._ended = answer[-1] if answer[-1] in self.stop else None
        own = tuple(answer[:-1] if self._ended is not None else answer)
        fractions = self.prefill_fraction(), self.computed_fraction()
        return Forced(nats, said, PolicyAnswer(own, ttft_s, total_s, *fractions, end=self._ended, nats=nats))

    def _force(
        self, tokens: list[int], answer: Sequence[int], tail: int
    ) -> tuple[tuple[float, ...], tuple[int, ...], float, float]:
        """Nats and choices, and the seconds to the first and the last of them."""
        start = perf_counter()
        logits = self.read(tokens, tail)
        mx.eval(logits)
        ttft_s = perf_counter() - start
        nats, said = [], []
        for place, token in enumerate(answer):
            logits = logits if place == 0 else self.step(mx.array([answer[place - 1]]))
            nats.append(_nats(logits, token))
            said.append(logits.argmax(axis=-1))
            mx.async_eval(nats[-1], said[-1])
        found = tuple(float(each.item()) for each in nats), tuple(map(to_int, said))
        return *found, ttft_s, perf_counter() - start

    def _to_read(self, tokens: list[int]) -> list[int]:
        """The rest of the answer before, and what is asked: a follow-up begins with what ends that answer."""
        return self._unread + tokens[tokens[:1] == [self._ended] :]

    def _answer(
        self, tokens: list[int], max_tokens: int, tail: int
    ) -> tuple[list[int], int, tuple[float, ...], float, float]:
        """The answer, its last token, the nats of all, and the seconds to its first and its last token."""
        start = perf_counter()
        token, nats = _likeliest(self.read(tokens, tail))
        mx.eval(token)
        ttft_s = perf_counter() - start
        answer: list[int] = []
        paid = []
        while True:
            paid.append(nats)
            # the next token is on its way before this one is looked at: the device never waits
            upcoming = _likeliest(self.step(token)) if len(answer) + 1 < max_tokens else None
            if upcoming is not None:
                mx.async_eval(*upcoming)
            value = to_int(token)
            if value not in self.stop:
                answer.append(value)
            if value in self.stop or upcoming is None:
                break
            token, nats = upcoming
        total_s = perf_counter() - start
        self._unread = [] if upcoming is not None else [value]
        return answer, value, tuple(float(each.item()) for each in paid), ttft_s, total_s


def _nats(logits: Float[mx.array, "1 V"], token: int | Integer[mx.array, " 1"]) -> mx.array:
    values = logits[0].astype(mx.float32)
    return mx.logsumexp(values) - values[token]


def _likeliest(logits: Float[mx.array, "1 V"]) -> tuple[Integer[mx.array, " 1"], mx.array]:
    """The token to go on with, and its nats."""
    token = logits.argmax(axis=-1)
    return token, _nats(logits, token)


@dataclass(frozen=True)
class Options:
    """What policies are made from.

    Attributes:
        lazy: lazymlx's configuration, whose schedule is one for this model.
        schedules: of the policies that have one; each is a point on their line.
        layer: where policies with a single selection select.
        keeps: shares of the prompt that those keep; each is a point on their line.
        draft: a small model with the same tokenizer.
    """

    lazy: LazyConfig
    schedules: tuple[Schedule, ...]
    layer: int
    keeps: tuple[float, ...]
    draft: Model | None = None
    seed: int = 0


class Policy(ABC):
    """A way to answer a long prompt, at one point of its trade of speed for quality."""

    name: ClassVar[str]
    source: ClassVar[str]  # where it was published
    needs_draft: ClassVar[bool] = False

    def __init__(self, point: str = ""):
        self.point = point

    @classmethod
    @abstractmethod
    def points(cls, options: Options) -> "list[Policy]":
        """The policy at each of its points."""

    @abstractmethod
    def begin(self, model: Model, stop: Collection[int]) -> PolicyConversation:
        """A new conversation."""

    def answer(
        self, model: Model, tokenizer: TokenizerWrapper, prompt: list[int], max_tokens: int, tail: int = 0
    ) -> PolicyAnswer:
        """Answer a single prompt."""
        return self.begin(model, tokenizer.eos_token_ids).ask(prompt, max_tokens, tail)


def prefill_share(model: Model, rows: Sequence[int], prompt: int, elsewhere: float = 0.0) -> float:
    """Operations of a prefill that ran layers over `rows[i]` tokens, as a share of the dense model's.

    Args:
        rows: one entry per layer run; a layer may have run more than once.
        elsewhere: operations in another model.
    """
    sizes, layers = Sizes.of(model.family.core(model).args), len(model.layers)
    if sizes is None:  # a mixture of experts: token-layers, which leave out that attention grows with the square
        return sum(rows) / (prompt * layers)
    return (prefill_flops(sizes, rows) + elsewhere) / prefill_flops(sizes, [prompt] * layers)


def single_cut(layer: int, keep: float) -> Schedule:
    """The schedule of a policy that selects once."""
    return Schedule((Cut(layer, keep),))
