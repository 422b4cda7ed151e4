"""lazymlx and its rivals: what each keeps, that keeping all of it is the dense model, and follow-ups."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx import demo
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.eval.policies import POLICIES, Options, Policy, engine
from lazymlx.eval.policies import forward as passes
from lazymlx.eval.policies.forward import Forward
from lazymlx.eval.policies.gemfilter import GemFilter
from lazymlx.eval.policies.lexical import BLOCK, QUERY, SINK, TAIL, Lexical
from lazymlx.eval.policies.random_drop import RandomScorer
from lazymlx.eval.policies.specprefill import CHUNK, LOOK_AHEAD, SpecPrefill
from lazymlx.eval.policies.subset import pooled
from lazymlx.loading.load import load
from lazymlx.schedule import Schedule

pytestmark = pytest.mark.unchecked

LAYER = 3
LENGTH = 200
ANSWER = 6


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


@pytest.fixture(scope="module")
def draft() -> Model:
    return twin_of(stock_model(tiny_args(num_hidden_layers=2), seed=1))


def policies(draft: Model, keep: float, *names: str) -> list[Policy]:
    lazy = replace(LazyConfig(), min_tokens=0, recent=8, window=8, round_to=1)
    options = Options(lazy, (Schedule.of(f"{LAYER}:{keep}"),), LAYER, (keep,), draft)
    return [policy for name in names or POLICIES for policy in POLICIES[name].points(options)]


def greedy(model: Model, tokens: list[int], count: int) -> list[int]:
    """The answer of the model without any cache."""
    said = list(tokens)
    for _ in range(count):
        said.append(int(model(mx.array([said]))[0, -1].argmax().item()))
    return said[-count:]


def is_greedy(model: Model, tokens: list[int], answer: list[int]) -> bool:
    """Whether the model without any cache would have said the same."""
    logits = model(mx.array([[*tokens, *answer]]))[0, len(tokens) - 1 : -1]
    return logits.argmax(axis=-1).tolist() == answer


@pytest.mark.parametrize("name", POLICIES)
def test_keeping_everything_is_the_dense_model(name: str, model: Model, draft: Model) -> None:
    tokens = random_tokens(LENGTH)
    (policy,) = policies(draft, 1.0, name)
    answer = policy.begin(model, ()).ask(tokens, ANSWER)
    assert is_greedy(model, tokens, list(answer.tokens))
    extra = answer.prefill_fraction - 1  # GemFilter reads twice, SpecPrefill with two models
    assert extra == pytest.approx(0) if name not in ("gemfilter", "specprefill") else extra > 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_follow_up_after_keeping_everything_is_the_dense_model(name: str, model: Model, draft: Model) -> None:
    first, second = random_tokens(LENGTH), random_tokens(20, seed=2)
    (policy,) = policies(draft, 1.0, name)
    conversation = policy.begin(model, ())
    said = list(conversation.ask(first, ANSWER).tokens)
    assert is_greedy(model, [*first, *said, *second], list(conversation.ask(second, ANSWER).tokens))


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "dense"])
def test_less_is_computed_and_counted(name: str, model: Model, draft: Model) -> None:
    (policy,) = policies(draft, 0.3, name)
    conversation = policy.begin(model, ())
    answer = conversation.ask(random_tokens(LENGTH), ANSWER)
    assert 0.3 <= answer.prefill_fraction < 0.9
    assert len(answer.tokens) == ANSWER
    later = conversation.ask(random_tokens(20, seed=3), ANSWER)
    assert later.prefill_fraction == answer.prefill_fraction
    assert later.computed_fraction <= 1


def test_work_of_a_subset_is_counted_in_token_layers(model: Model) -> None:
    policy, tokens = GemFilter(0.2, LAYER), random_tokens(LENGTH)
    kept = len(policy.choose(model, tokens).tokens)
    assert kept in (LENGTH * 0.2, LENGTH * 0.2 + 1)  # and the last token, if it was not among them
    answer = policy.begin(model, ()).ask(tokens, 4)
    operations = [2 * (32 * (2 * 4 + 2 * 2) * 8 + 3 * 32 * 48 + 4 * 8 * rows) * rows for rows in (LENGTH, kept)]
    head = 2 * 32 * 64
    share = (operations[0] * LAYER + operations[1] * 6 + head) / (operations[0] * 6 + head)
    assert answer.prefill_fraction == pytest.approx(share)
    rows = LENGTH * LAYER + (kept + 3) * 6
    assert answer.computed_fraction == pytest.approx(rows / ((LENGTH + 3) * 6))


def test_an_answer_ends_with_its_stop_token_and_the_next_question_does_not_repeat_it(model: Model) -> None:
    tokens = random_tokens(LENGTH)
    said = greedy(model, tokens, ANSWER)
    stop = said[-1]
    before = said[: said.index(stop)]
    (policy,) = policies(model, 1.0, "lexical")
    question = random_tokens(9, seed=4)
    expected = greedy(model, [*tokens, *before, stop, *question], 3)
    closed = policy.begin(model, {stop})
    assert list(closed.ask(tokens, ANSWER).tokens) == before
    closed.stop = frozenset()
    assert list(closed.ask([stop, *question], 3).tokens) == expected
    cut_short = policy.begin(model, {stop})
    cut_short.ask(tokens, len(before))  # the stop token was never made: the question brings it
    cut_short.stop = frozenset()
    assert list(cut_short.ask([stop, *question], 3).tokens) == expected


def test_long_prompts_are_read_in_chunks_by_both_kinds_of_conversation(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine, passes):
        monkeypatch.setattr(module, "STEP_SIZE", 64)
    tokens = random_tokens(LENGTH)
    whole = model(mx.array([tokens]))[0, -1]
    for policy in policies(model, 1.0, "dense", "lexical", "lazy"):
        assert mx.abs(policy.begin(model, ()).read(tokens, 0)[0] - whole).max() < 1e-3


def test_random_drop_draws_the_same_for_the_same_prompt_and_anew_for_longer_ones_and_other_seeds() -> None:
    def drawn(seed: int, count: int) -> list:
        keys = mx.zeros((2, count, 4))
        return RandomScorer(seed)(keys, keys, None).tolist()

    assert drawn(3, 50) == drawn(3, 50)
    assert drawn(3, 51)[:50] != drawn(3, 50) != drawn(4, 50)


def test_fastkv_protects_its_window_and_nothing_else(model: Model, draft: Model) -> None:
    (policy,) = policies(draft, 0.2, "fastkv")
    conversation = policy.begin(model, ())
    conversation.ask(random_tokens(LENGTH), 2)
    assert conversation.cache[0].turn.kept == (LENGTH * 0.2 + 8,)


def test_gemfilter_keeps_the_highest_sums_of_products(model: Model) -> None:
    """Against a loop over heads; the mean of five neighbours counts those beyond the ends as zero."""
    tokens = random_tokens(90)
    forward = Forward(model, LAYER)
    forward.read(mx.array(tokens), np.arange(90))
    keys, queries = (np.array(a) for a in (forward.keys(LAYER - 1), forward.queries[-1][0, :, -1]))
    sums = sum(keys[head // 2] @ queries[head] for head in range(4))
    padded = np.pad(sums, 2)
    means = np.array([padded[i : i + 5].mean() for i in range(90)])
    kept = GemFilter(0.2, LAYER).choose(model, tokens)
    assert kept.tokens.tolist() == sorted({*np.argsort(-means)[:18].tolist(), 89})
    assert kept.positions.tolist() == list(range(len(kept.tokens)))
    assert kept.end == len(kept.tokens)


def test_pooling_counts_zeros_beyond_the_ends() -> None:
    assert pooled(mx.array([3.0, 6.0, 9.0]), 3).tolist() == [3.0, 6.0, 5.0]


def test_specprefill_scores_by_what_the_draft_attends_to(model: Model, draft: Model) -> None:
    """Against attention of the whole text: the draft's own look-ahead appended to the prompt, without any cache."""
    N = 100
    tokens = random_tokens(N)
    ahead = greedy(draft, tokens, LOOK_AHEAD)
    forward = Forward(draft)
    forward.read(mx.array(tokens + ahead), np.arange(N + LOOK_AHEAD))
    by_layer = []
    for layer, queries in enumerate(forward.queries):
        for head in range(4):
            q = np.array(queries[0, head, N:]) * draft.layers[layer].self_attn.scale
            logits = q @ np.array(forward.keys(layer)[head // 2, :N]).T
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            padded = np.pad(weights, ((0, 0), (6, 6)))
            by_layer.append(np.stack([padded[:, i : i + 13].mean(axis=1) for i in range(N)], axis=1))
    expected = np.max(by_layer, axis=0).mean(axis=0)
    policy = SpecPrefill(0.3, draft)
    np.testing.assert_allclose(np.array(policy.importance(tokens)), expected, rtol=2e-3, atol=1e-6)
    chunks = [expected[start : start + CHUNK].mean() for start in range(0, N, CHUNK)]  # 4 of them, the last has 4
    best = {*np.argsort(chunks)[::-1][:2].tolist(), 3}
    kept = policy.choose(model, tokens)
    assert kept.tokens.tolist() == [i for i in range(N) if i // CHUNK in best]
    assert kept.positions.tolist() == kept.tokens.tolist() and kept.end == N
    assert kept.flops > 0 and kept.layers == 0


def test_tokens_kept_in_place_see_each_other_at_their_own_distance(model: Model) -> None:
    """Reading a subset at its own positions: the same as reading it moved together only if nothing was between."""
    tokens = mx.array(random_tokens(20))
    near, far = (Forward(model).logits(tokens, positions) for positions in (np.arange(20), np.arange(20) + 7))
    apart = Forward(model).logits(tokens, np.append(np.arange(10), np.arange(10) + 30))
    assert mx.abs(near - far).max() < 1e-3  # rotary positions are relative
    assert mx.abs(near - apart).max() > 1e-2


def test_lexical_keeps_both_ends_and_the_blocks_that_share_rare_words_with_the_question() -> None:
    tokens = [7, 8, 9, 10] * 100
    place = SINK + 3 * BLOCK + 5
    tokens[place : place + 3] = [50, 51, 52]
    tokens[-QUERY:] = range(100, 100 + QUERY)
    tokens[-4] = 51  # the question names it
    kept = set(Lexical(0.5).choose(None, tokens).tokens.tolist())  # type: ignore[arg-type]
    assert len(kept) == 200
    assert set(range(SINK)) | set(range(400 - TAIL, 400)) <= kept
    assert set(range(SINK + 3 * BLOCK, SINK + 4 * BLOCK)) <= kept


def test_every_policy_cites_its_source() -> None:
    assert all(kind.source for kind in POLICIES.values())


def test_a_trained_draft_finds_what_is_asked_for() -> None:
    draft, tokenizer = load(str(demo.MODEL))
    filler = " The road was long and the weather was fair, and nobody had much to say about either." * 12
    text = f"{filler} The access code for the Belgor project is 40718.{filler}"
    question = "\n\nQuestion: What is the access code for the Belgor project?<|assistant|>"
    tokens = tokenizer.encode(f"<|bos|><|user|>\n\n{text}{question}", add_special_tokens=False)
    kept = SpecPrefill(0.3, draft).choose(draft, tokens)
    assert "Belgor project is 40718" in tokenizer.decode([tokens[i] for i in kept.tokens])
