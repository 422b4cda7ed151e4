"""What a configuration costs in quality, without labels: how much more the dense model's answers surprise it.

The dense model's greedy answer is given token by token; the loss is the rise in nats a token, a mean over the prompts
of each kind. Sentences can differ in words and say the same, so the share of same answers stands beside it, and does
not decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum, inf, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..config import LazyConfig
from ..engine.model import Model
from ..eval.agreement import Reference, asked, force
from ..eval.encoding import Encoded, Encoder
from .kinds import Prompt
from .shared import Continued, SharedPrompt

ANSWER_TOKENS = 64
MOST_KEPT = 1 << 30  # bytes of prompts that are kept for the next candidates
UNSURE = 0.05  # of all cases, those in which a bound may be too low


@dataclass(frozen=True)
class Outcome:
    """One configuration on one prompt: the rise in nats a token, and whether the first token and all are the same."""

    rise: float
    first: bool
    same: bool
    tokens: int = 0  # of the prompt
    kept: tuple[int, ...] = ()  # of them, behind each cut


@dataclass(frozen=True)
class Loss:
    """The outcomes of a configuration, by kind of prompt."""

    kinds: dict[str, tuple[Outcome, ...]]

    @classmethod
    def of(cls, prompts: Sequence[Prompt], outcomes: Sequence[Outcome]) -> "Loss":
        """Of the first so many prompts."""
        kinds: dict[str, tuple[Outcome, ...]] = {}
        for prompt, outcome in zip(prompts, outcomes, strict=False):
            kinds[prompt.kind] = (*kinds.get(prompt.kind, ()), outcome)
        return cls(kinds)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for found in self.kinds.values() for outcome in found]

    def total(self, kind: str) -> float:
        return fsum(outcome.rise for outcome in self.kinds.get(kind, ()))

    def mean(self, kind: str) -> float:
        return fmean(outcome.rise for outcome in self.kinds[kind])

    @property
    def nats(self) -> float:
        """The mean over kinds."""
        return fmean(map(self.mean, self.kinds)) if self.kinds else 0.0

    @property
    def worst(self) -> str:
        """The kind that loses most."""
        return max(self.kinds, key=self.mean, default="")

    def at_most(self, kind: str, checks: int = 1) -> float:
        """The mean of a kind that these prompts speak for with 95% confidence (Student's t, one-sided).

        Args:
            checks: how many might have been made until one passed; the confidence is shared among them (Bonferroni).
        """
        rises = [outcome.rise for outcome in self.kinds[kind]]
        if len(rises) < 2:
            return inf
        return fmean(rises) + quantile(len(rises) - 1, UNSURE / checks) * stdev(rises) / sqrt(len(rises))

    def needed(self, limit: float, checks: int) -> int:
        """About how many prompts a kind would show that kinds whose means are below a limit are."""
        counts = [max(map(len, self.kinds.values()), default=1) + 1]
        for kind, found in self.kinds.items():
            margin, z = limit - self.mean(kind), NormalDist().inv_cdf(1 - UNSURE / checks)
            if len(found) > 1 and margin > 0:
                counts.append(ceil((z * stdev(outcome.rise for outcome in found) / margin) ** 2) + 2)
        return max(counts)

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {kind: {"nats": round(self.mean(kind), 4), **_shares(found)} for kind, found in self.kinds.items()}

    def __str__(self) -> str:
        if not self.kinds:
            return "nothing was measured"
        shares = _shares(self.outcomes)
        return (
            f"{self.nats:.3f} nats a token, most for {self.worst} ({self.mean(self.worst):.3f}); first tokens agree "
            f"{shares['first_agrees']:.0%}, same answers {shares['same']:.0%}, {shares['prompts']} prompts"
        )


def _shares(outcomes: Sequence[Outcome]) -> dict[str, int | float]:
    return {
        "prompts": len(outcomes),
        "first_agrees": round(fmean(outcome.first for outcome in outcomes), 4),
        "same": round(fmean(outcome.same for outcome in outcomes), 4),
    }


def quantile(freedom: int, beyond: float) -> float:
    """Of Student's t distribution, by Cornish and Fisher's expansion; `freedom` from 1 on, good to 1% from 5 on."""
    z, n = NormalDist().inv_cdf(1 - beyond), freedom
    terms = (
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return z + sum(terms)


class LossMeter:
    """Measures configurations on prompts. What the dense model says to a prompt is found once and kept."""

    def __init__(self, model: Model, tokenizer: TokenizerWrapper):
        self.model, self.encoder = model, Encoder(tokenizer)
        self.dense: dict[Prompt, Reference] = {}
        self.shared: dict[Prompt, SharedPrompt] = {}

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        """The outcome of each configuration on a prompt."""
        tokens = self.encoder.prompt(prompt.text + self.encoder.cue)
        shared = self._shared(prompt, tokens)
        if prompt not in self.dense:
            dense = self._begin(shared, LazyConfig.dense())
            self.dense[prompt] = asked(dense, self.encoder, [tokens], ANSWER_TOKENS)
        return [self._compare(shared, tokens, self.dense[prompt], config) for config in configs]

    def _shared(self, prompt: Prompt, tokens: Encoded) -> SharedPrompt:
        if prompt in self.shared:
            return self.shared[prompt]
        shared = SharedPrompt(self.model, mx.array([tokens.tokens]))
        if sum(each.nbytes for each in self.shared.values()) < MOST_KEPT:
            self.shared[prompt] = shared
        return shared

    def _begin(self, shared: SharedPrompt, config: LazyConfig) -> Continued:
        return Continued(shared, config, self.encoder.tokenizer.eos_token_ids)

    def _compare(self, shared: SharedPrompt, tokens: Encoded, dense: Reference, config: LazyConfig) -> Outcome:
        conversation = self._begin(shared, config)
        forced = force(conversation, [tokens], dense.answers)
        kept = conversation.cache[0].turn.kept
        return Outcome(dense.rise(forced), dense.begins_as(forced), dense.is_as(forced), len(tokens.tokens), kept)
