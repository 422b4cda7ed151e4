"""The guard: an unsure first token has the rest of its prompt computed, once, and is asked for again."""

import mlx.core as mx
import pytest
from model_folder import HARD_MODEL
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx import demo
from lazymlx.cache.conversation import LazyCache
from lazymlx.cli.statistics import kept
from lazymlx.config import LazyConfig
from lazymlx.errors import ConfigError
from lazymlx.generation import generate_step, stream_generate
from lazymlx.loading.load import load
from lazymlx.prefill import prefill, read

TOKENS = random_tokens(60)
SMALL = {"window": 3, "pool": 1, "sink": 1, "recent": 2, "min_tokens": 0, "round_to": 1}


@pytest.fixture(scope="module")
def model():
    return twin_of(stock_model(tiny_args()))


def asked(model, guard: float, schedule: str = "2:0.3,4:0.1", **changes: object) -> tuple[LazyCache, mx.array]:
    """A cache that has read the tokens, and the last one's logits."""
    cache = model.make_cache(LazyConfig(schedule, guard=guard, **{**SMALL, **changes}))
    logits = prefill(model, TOKENS, cache)
    assert logits is not None
    return cache[0], logits[0]


def confidence(logits: mx.array) -> float:
    return float(mx.softmax(logits).max())


def test_a_sure_answer_is_left_alone(model) -> None:
    cache, logits = asked(model, guard=0.0)
    same_cache, same = asked(model, guard=confidence(logits) * 0.999)
    assert mx.array_equal(same, logits)
    assert same_cache.computed() == cache.computed() and cache.computed()[-1] < len(TOKENS)
    assert not same_cache.stats().guarded


@pytest.mark.parametrize("revive", [None, 7, 0])
def test_an_unsure_one_has_everything_computed(model, revive: int | None) -> None:
    """Every token in every stage, and none of them twice: the last one is forgotten before it is given again."""
    _, logits = asked(model, guard=0.0, revive=revive)
    cache, again = asked(model, guard=confidence(logits) * 1.001, revive=revive)
    assert cache.computed() == (len(TOKENS),) * 3 and cache.waiting == 0 and cache.stats().guarded
    assert "less sure than --guard" in kept(cache.stats(), cache.config)
    for stage in cache.stages:
        assert sorted(stage.positions[: stage.filled].tolist()) == list(range(len(TOKENS)))
    assert not mx.array_equal(again, logits)
    assert (cache.turn_start, cache.prompt_end, cache.expected, cache.reading) == (0, len(TOKENS), 0, False)


def test_the_second_try_sees_what_the_dense_model_does(model) -> None:
    """Behind a cut at the last layer only the last token's own row matters, and that one is computed anew."""
    _, lazy = asked(model, guard=0.0, schedule="5:0.05")
    _, again = asked(model, guard=1.0, schedule="5:0.05")
    dense = model(mx.array([TOKENS]))[0, -1]
    assert mx.abs(again - dense).max() < 1e-3 < mx.abs(lazy - dense).max()


def test_a_question_about_a_document_is_guarded_too(model) -> None:
    cache = model.make_cache(LazyConfig("2:0.3,4:0.1", guard=1.0, **SMALL))
    read(model, TOKENS[:50], cache)
    prefill(model, TOKENS[50:], cache)
    assert cache[0].computed() == (60, 60, 60)
    prefill(model, TOKENS[:1], cache)  # a follow-up of a single token
    assert cache[0].offset == 61 and cache[0].computed() == (61, 61, 61)


def test_generation_goes_on_from_the_second_try(model) -> None:
    config = LazyConfig("5:0.05", guard=1.0, **SMALL)
    tokens = [token for token, _ in generate_step(TOKENS, model, prompt_cache=model.make_cache(config), max_tokens=8)]
    dense = model.make_cache(LazyConfig.dense())
    assert tokens == [token for token, _ in generate_step(TOKENS, model, prompt_cache=dense, max_tokens=8)]


@pytest.mark.parametrize("guard", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_guard_is_a_probability(guard: float) -> None:
    with pytest.raises(ConfigError, match="guard"):
        LazyConfig(guard=guard)


def test_a_cut_that_is_too_early_is_made_good() -> None:
    """The hard model finds a fact in layer 7, counted from 0; a cut before that loses it, and that shows."""
    model, tokenizer = load(str(HARD_MODEL), LazyConfig("7:0.1", min_tokens=0))
    question = demo.questions()[0]
    paragraphs = demo.document().split("\n\n")
    at = next(i for i, paragraph in enumerate(paragraphs) if question["answer"] in paragraph)
    text = "\n\n".join([paragraphs[at], paragraphs[at + 1]])
    message = {"role": "user", "content": f"{text}\n\nQuestion: {question['question']}"}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)

    def answer(guard: float) -> str:
        cache = model.make_cache(LazyConfig("7:0.1", min_tokens=0, guard=guard))
        parts = stream_generate(model, tokenizer, prompt, max_tokens=8, prompt_cache=cache)
        return "".join(part.text for part in parts).strip()

    assert answer(0.0) != question["answer"]
    assert answer(0.9) == question["answer"]
