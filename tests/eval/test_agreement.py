"""Agreement with the dense model: what a policy thinks of the dense answer, and how sure a mean of that is."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.eval.agreement import Reference, agreement, closeness, force, reference
from lazymlx.eval.encoding import Encoded, Encoder
from lazymlx.eval.intervals import interval
from lazymlx.eval.policies import POLICIES, Forced, Options, Policy, PolicyAnswer
from lazymlx.schedule import Schedule

pytestmark = pytest.mark.unchecked

LAYER, LENGTH, ANSWER = 3, 160, 6


class Numbers(Encoder):
    """Its texts are the tokens' numbers; only `stop` ends an answer."""

    def __init__(self, *stop: int):
        self.tokenizer = SimpleNamespace(eos_token_ids=set(stop))

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


@pytest.fixture(scope="module")
def draft() -> Model:
    return twin_of(stock_model(tiny_args(num_hidden_layers=2), seed=1))


def policy(name: str, keep: float, draft: Model) -> Policy:
    lazy = replace(LazyConfig(), min_tokens=0, recent=8, window=8, round_to=1)
    (made,) = POLICIES[name].points(Options(lazy, (Schedule.of(f"{LAYER}:{keep}"),), LAYER, (keep,), draft))
    return made


def nats_of(model: Model, before: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """From the logits of the whole text, in NumPy."""
    logits = np.array(model(mx.array([[*before, *answer]])), dtype=np.float64)[0, len(before) - 1 : -1]
    return np.log(np.exp(logits).sum(axis=1)) - logits[range(len(answer)), list(answer)]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_keeps_everything_thinks_of_an_answer_what_the_model_thinks(
    name: str, model: Model, draft: Model
) -> None:
    tokens, question = random_tokens(LENGTH), random_tokens(9, seed=1)
    one, other = random_tokens(ANSWER, seed=2), random_tokens(ANSWER, seed=3)
    conversation = policy(name, 1.0, draft).begin(model, ())
    first, second = conversation.force(tokens, one), conversation.force(question, other)
    np.testing.assert_allclose(first.nats, nats_of(model, tokens, one), atol=2e-3)
    np.testing.assert_allclose(second.nats, nats_of(model, [*tokens, *one, *question], other), atol=2e-3)
    assert first.said[0] == int(model(mx.array([tokens]))[0, -1].argmax())


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_rises_where_everything_is_kept(name: str, model: Model, draft: Model) -> None:
    prompts = [Encoded(random_tokens(LENGTH)), Encoded(random_tokens(12, seed=1))]
    dense = reference(model, Numbers(), prompts, ANSWER)
    forced = force(policy(name, 1.0, draft).begin(model, ()), prompts, dense.answers)
    found = agreement(dense, forced, dense.text)
    assert abs(found.pop("nats_rise")) < 1e-3
    assert found == {"first_agrees": True, "same_as_dense": True, "f1_to_dense": 1.0}
    assert dense.is_as(forced)


def test_what_a_random_choice_leaves_behind_is_missed(model: Model, draft: Model) -> None:
    rises = []
    for seed in range(8):
        prompts = [Encoded(random_tokens(LENGTH, seed=seed))]
        dense = reference(model, Numbers(), prompts, ANSWER)
        forced = force(policy("random", 0.1, draft).begin(model, ()), prompts, dense.answers)
        rises.append(agreement(dense, forced, "")["nats_rise"])
    assert fmean(rises) > 0.1


def test_the_token_that_ends_an_answer_belongs_to_it(model: Model) -> None:
    tokens, question = random_tokens(LENGTH), random_tokens(9, seed=1)
    free = reference(model, Numbers(), [Encoded(tokens)], ANSWER).answers[0]
    stop = free[2]
    ended = free[: free.index(stop) + 1]
    prompts = [
        Encoded(tokens),
        Encoded([stop, *question]),
    ]  # a template closes the answer before a follow-up
    dense = reference(model, Numbers(stop), prompts, ANSWER)
    assert dense.answers[0] == ended
    expected = nats_of(model, [*tokens, *ended, *question], dense.answers[1])
    assert dense.nats == pytest.approx(expected.mean(), abs=2e-3)


@pytest.mark.parametrize("name", POLICIES)
def test_an_answer_that_is_agreed_with_to_the_end_is_the_policys_own(name: str, model: Model, draft: Model) -> None:
    """Taking it in computes what saying it does: the tokens, the stop token among them, and the same share."""
    tokens, made = random_tokens(LENGTH), policy(name, 0.5, draft)
    stop = made.begin(model, ()).ask(tokens, ANSWER).tokens[3]
    said = made.begin(model, {stop}).ask(tokens, ANSWER)
    forced = made.begin(model, {stop}).force(tokens, said.with_end)
    assert forced.said == said.with_end
    assert forced.answer.with_end == said.with_end and forced.answer.end == stop
    assert forced.answer.prefill_fraction == said.prefill_fraction
    assert forced.answer.computed_fraction == pytest.approx(said.computed_fraction, abs=0.02)  # the stop token is read
    assert 0 < forced.answer.ttft_s <= forced.answer.total_s
    np.testing.assert_allclose(forced.nats, said.nats, atol=1e-4)


def test_agreement_compares_first_tokens_texts_and_words() -> None:
    answer = PolicyAnswer((5, 6), 1.0, 2.0, prefill_fraction=0.5, computed_fraction=0.5, nats=(0.2, 0.8))
    dense = Reference((answer,), "The red house")
    found = agreement(dense, Forced((1.0, 2.0), said=(7, 6), answer=answer), "a red door")
    assert found == {"nats_rise": 1.0, "first_agrees": False, "same_as_dense": False, "f1_to_dense": 0.5}
    assert closeness("", ".") == 1.0 and closeness("", "word") == 0.0


def test_an_interval_is_that_of_redrawn_means() -> None:
    """Against redrawing in NumPy with other draws; and the normal approximation of many values."""
    values = np.random.default_rng(1).normal(2.0, 1.0, size=60)
    low, high = interval([values.tolist()])
    rng = np.random.default_rng(2)
    means = [rng.choice(values, size=60).mean() for _ in range(4000)]
    np.testing.assert_allclose((low, high), np.percentile(means, (2.5, 97.5)), atol=0.03)
    assert interval([values.tolist()]) == (low, high)


def test_an_interval_over_tasks_weighs_them_alike() -> None:
    many, few = [0.0] * 50, [1.0, 1.0]
    assert interval([many, few]) == (0.5, 0.5)
    assert interval([many, [1.0]]) is None
