"""How far a policy agrees with the dense model: what it thinks of the dense answer, and how close its own comes.

The measure is the rise in nats a token: the dense answer is given to the policy token by token, and its mean surprise
compared with the dense model's own. It needs no labels, and tells a loss where answers that are sentences differ in
words alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..config import LazyConfig
from ..engine.model import Model
from .encoding import Encoded, Encoder
from .metrics import f1, normalised
from .policies import Forced, PolicyAnswer, PolicyConversation
from .policies.dense import Dense


@dataclass(frozen=True)
class Reference:
    """What the dense model says.

    Attributes:
        given: its answer to each question of a conversation.
        text: the last one.
    """

    given: tuple[PolicyAnswer, ...]
    text: str

    @property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """With the tokens that ended them."""
        return tuple(answer.with_end for answer in self.given)

    @property
    def nats(self) -> float:
        """A token of the last answer, under the dense model."""
        return fmean(self.given[-1].nats)

    @property
    def forced(self) -> Forced:
        """What the dense model thinks of its last answer."""
        last = self.given[-1]
        return Forced(last.nats, last.with_end, last)

    def rise(self, forced: Forced) -> float:
        """Nats a token that the last answer surprises a policy more than the dense model."""
        return fmean(forced.nats) - self.nats

    def begins_as(self, forced: Forced) -> bool:
        """Whether a policy would have begun with the same token."""
        return forced.said[0] == self.answers[-1][0]

    def is_as(self, forced: Forced) -> bool:
        """Whether a policy would have given the same answer, to the same questions."""
        return forced.said == self.answers[-1]


def reference(model: Model, encoder: Encoder, prompts: Sequence[Encoded], max_tokens: int) -> Reference:
    """Ask the dense model."""
    conversation = Dense(LazyConfig.dense(), point="").begin(model, encoder.tokenizer.eos_token_ids)
    return asked(conversation, encoder, prompts, max_tokens)


def asked(conversation: PolicyConversation, encoder: Encoder, prompts: Sequence[Encoded], max_tokens: int) -> Reference:
    """Ask the dense model, in a conversation of its own."""
    given = tuple(conversation.ask(prompt.tokens, max_tokens, prompt.tail) for prompt in prompts)
    return Reference(given, encoder.text(given[-1].tokens))


def force(conversation: PolicyConversation, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]]) -> Forced:
    """What a policy thinks of the last answer, all before it having been given too."""
    pairs = zip(prompts, answers, strict=True)
    return [conversation.force(prompt.tokens, answer, prompt.tail) for prompt, answer in pairs][-1]


def agreement(dense: Reference, forced: Forced, text: str) -> dict[str, Any]:
    """The columns of an answer, `text`, beside the dense one."""
    return {
        "nats_rise": dense.rise(forced),
        "first_agrees": dense.begins_as(forced),
        "same_as_dense": text == dense.text,
        "f1_to_dense": closeness(text, dense.text),
    }


def closeness(text: str, other: str) -> float:
    """F1 of two answers' words; two that have none are as close as can be."""
    return 1.0 if normalised(text) == normalised(other) else f1(text, (other,))
