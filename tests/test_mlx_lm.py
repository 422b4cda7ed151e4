"""mlx-lm's own machinery around a model of ours: its loops, its scoring, its samplers.

With nothing left behind all of it must give what it gives with mlx-lm's model.
"""

import copy
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.generate import generate_step as their_generate_step
from mlx_lm.generate import speculative_generate_step
from mlx_lm.generate import stream_generate as their_stream_generate
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.perplexity import eval_ppl
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from talking import DOCUMENT, TEMPLATE, speller, talker
from tiny import stock_model, tiny_args, twin_of

from lazymlx import LazyConfig, cache_for
from lazymlx.engine.model import Model
from lazymlx.errors import UsageError
from lazymlx.generation import generate_step, stream_generate

pytestmark = pytest.mark.unchecked

DENSE = {"no cut": LazyConfig.dense(), "keep all": LazyConfig("3:1.0", min_tokens=0)}
PROMPT = np.random.default_rng(4).integers(64, size=40).tolist()


@pytest.fixture(scope="module")
def stock() -> nn.Module:
    return stock_model(tiny_args())


@pytest.fixture(params=DENSE)
def model(stock: nn.Module, request: pytest.FixtureRequest) -> Model:
    model = twin_of(stock)
    model.lazy = model.resolve(DENSE[request.param])
    return model


def first(steps: Iterator, count: int = 12) -> list[int]:
    return [int(step[0]) for step, _ in zip(steps, range(count), strict=False)]


def test_perplexity(stock, model):
    """`mlx_lm.perplexity` calls a model without a cache, several sequences at a time."""
    data = mx.array(np.random.default_rng(1).integers(64, size=(5, 30)))
    assert eval_ppl(model, data, batch_size=2) == pytest.approx(eval_ppl(stock, data, batch_size=2), rel=1e-5)


def test_likelihoods(stock):
    """`mlx_lm.evaluate` reads a question with an untold cache and scores each continuation on a copy of it."""
    model = twin_of(stock)
    model.lazy = LazyConfig.dense()
    for continuation in (PROMPT[30:33], PROMPT[33:40]):
        rows = []
        for any_model in (stock, model):
            cache = make_prompt_cache(any_model)
            for start, stop in ((0, 16), (16, 30)):
                question = any_model(mx.array([PROMPT[start:stop]]), cache=cache)
            scored = any_model(mx.array([continuation]), cache=copy.deepcopy(cache))
            assert scored.shape[1] == len(continuation)
            rows.append(np.array(mx.concatenate([question[:, -1:], scored], axis=1)))
        np.testing.assert_allclose(*rows, atol=1e-3)


def test_their_loop(stock, model):
    """It tells the cache nothing: the first token that comes alone ends the prompt."""
    assert first(their_generate_step(mx.array(PROMPT), model, prefill_step_size=16)) == first(
        their_generate_step(mx.array(PROMPT), stock, prefill_step_size=16)
    )


@pytest.mark.parametrize("lazy", [LazyConfig("2:0.4", min_tokens=0, recent=4, round_to=1), LazyConfig.paper("2:0.5")])
def test_their_loop_chooses_our_tokens_when_it_is_given_the_prompt(lazy: LazyConfig) -> None:
    """Its own cache knows neither the prompt's length nor where the chat template's tail begins."""
    model, tokenizer = talker(lazy), speller(f"{TEMPLATE} well then: ")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": DOCUMENT}], add_generation_prompt=True, tokenize=False
    )
    ours = [response.token for response in stream_generate(model, tokenizer, prompt, max_tokens=12)]
    theirs = their_stream_generate(
        model, tokenizer, prompt, max_tokens=12, prompt_cache=cache_for(model, tokenizer, prompt), prefill_step_size=16
    )
    assert [response.token for response in theirs] == ours


def test_their_trimming(model):
    cache = make_prompt_cache(model)
    answer = first(their_generate_step(mx.array(PROMPT), model, prompt_cache=cache))
    assert can_trim_prompt_cache(cache)
    trim_prompt_cache(cache, cache[0].offset - 20)
    assert first(their_generate_step(mx.array(PROMPT[20:]), model, prompt_cache=cache)) == answer


SAMPLING = {
    "greedy": {},
    "temperature": {"sampler": {"temp": 0.8}},
    "nucleus": {"sampler": {"temp": 1.0, "top_p": 0.7}},
    "min-p": {"sampler": {"temp": 1.0, "min_p": 0.1, "min_tokens_to_keep": 2}},
    "top-k": {"sampler": {"temp": 1.0, "top_k": 5}},
    "XTC": {"sampler": {"temp": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.05}},
    "bias": {"processors": {"logit_bias": {3: 4.0, 9: -100.0}}},
    "repetition": {"processors": {"repetition_penalty": 1.5, "repetition_context_size": 8}},
    "presence": {"processors": {"presence_penalty": 0.8, "frequency_penalty": 0.5}},
}


@pytest.mark.parametrize("how", SAMPLING)
def test_samplers_and_processors(stock, model, how):
    """With the same seed, ours draws mlx-lm's tokens."""

    def options() -> dict:
        return {
            "sampler": make_sampler(**SAMPLING[how].get("sampler", {})),
            "logits_processors": make_logits_processors(**SAMPLING[how].get("processors", {})),
        }

    mx.random.seed(7)
    expected = first(their_generate_step(mx.array(PROMPT), stock, **options()))
    mx.random.seed(7)
    assert first(generate_step(PROMPT, model, **options())) == expected


@pytest.mark.parametrize("num_draft_tokens", [1, 3])
def test_their_speculative_loop_checks_drafts_with_a_dense_model(stock, num_draft_tokens):
    """With no cut, several tokens at a time are what mlx-lm's model says of them."""
    model = twin_of(stock)
    model.lazy = LazyConfig.dense()
    draft = stock_model(tiny_args(num_hidden_layers=2), seed=1)
    steps = speculative_generate_step(mx.array(PROMPT), model, draft, num_draft_tokens=num_draft_tokens, max_tokens=12)
    assert first(steps) == first(their_generate_step(mx.array(PROMPT), stock))


def test_a_draft_model_is_refused_with_a_reason(model):
    with pytest.raises(UsageError, match="draft_model: .* each token chooses for itself .* mlx_lm's own generate"):
        next(stream_generate(model, speller(), PROMPT, draft_model=model))
