"""With nothing left behind, logits are mlx-lm's Llama's: the empty schedule, keep 1.0, and the model without a cache.

Both are fed alike, on the same random weights: a prompt in chunks, an answer token by token, a follow-up question.
"""

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import llama
from tiny import by_rows, feed, random_tokens, stock_model, tiny_args, twin_of

from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model

pytestmark = pytest.mark.unchecked

TOLERANCE = 1e-4
PROMPT, QUESTION = random_tokens(30), random_tokens(8, seed=1)
ANSWER = random_tokens(2, seed=2)

DENSE = {
    "empty schedule": LazyConfig.dense(),
    "keep 1.0": LazyConfig(((2, 1.0), (4, 1.0)), min_tokens=0),
    "keep 1.0, paper": LazyConfig.paper(((2, 1.0), (4, 1.0))),
    "below min_tokens": LazyConfig(((2, 0.3),), min_tokens=100),
}

ROPES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 2.0},
    "longrope": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 16,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 1.5, 2.0, 4.0],
    },
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0},
    "mrope": {"rope_type": "mrope", "mrope_section": [1, 1, 2]},
}

MODELS = {
    "grouped heads": {},
    "as many key heads as queries": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "key heads not given": {"num_key_value_heads": None},
    "head size not given": {"head_dim": None},
    "heads wider than the model": {"head_dim": 16},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "traditional rope": {"rope_traditional": True},
    "another theta": {"rope_theta": 500000.0},
    "eps": {"rms_norm_eps": 1e-2},
}


def turns(model, cache: list, chunk: int = 2048, announced: bool = False) -> Iterator[mx.array]:
    """Logits after a prompt, each token of an answer, a follow-up question, and each token of another answer."""
    for prompt in (PROMPT, QUESTION):
        if announced:
            cache[0].expect(len(prompt))
        yield feed(by_rows(model, chunk) if announced else model, cache, prompt, chunk)[0, -1]
        for token in ANSWER:
            yield model(mx.array([[token]]), cache=cache)[0, -1]


def assert_same(stock: llama.Model, ours: Model, chunk: int = 2048, announced: bool = True) -> None:
    """In every mode that leaves nothing behind."""
    expected = np.array(list(turns(stock, stock.make_cache(), chunk)))
    for mode, config in DENSE.items():
        found = np.array(list(turns(ours, ours.make_cache(config), chunk, announced)))
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, err_msg=mode)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unannounced"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_prefill_decode_and_follow_up_are_mlx_lms(chunk, announced):
    stock = stock_model(tiny_args())
    assert_same(stock, twin_of(stock), chunk, announced)


@pytest.mark.parametrize("change", MODELS)
def test_every_kind_of_llama(change):
    stock = stock_model(tiny_args(**MODELS[change]))
    assert_same(stock, twin_of(stock))


@pytest.mark.parametrize("traditional", [False, True], ids=["halves", "traditional"])
@pytest.mark.parametrize("kind", ROPES)
def test_every_rope(kind, traditional):
    args = tiny_args(rope_scaling=ROPES[kind], rope_traditional=traditional, max_position_embeddings=64)
    stock = stock_model(args)
    assert_same(stock, twin_of(stock))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_quantised_weights(bits, tied):
    stock = stock_model(tiny_args(tie_word_embeddings=tied, intermediate_size=64))
    ours = twin_of(stock)
    for model in (stock, ours):
        nn.quantize(model, group_size=32, bits=bits)
    assert isinstance(ours.layers[0].self_attn.q_proj, nn.QuantizedLinear)
    assert_same(stock, ours)


# --- dynamic NTK beyond its original length ----------------------------------------------------------


@pytest.mark.parametrize("mode", DENSE)
def test_dynamic_ntk_of_a_whole_prompt_is_mlx_lms(mode):
    """The base of dynamic NTK grows with the context from the original length on. In one call mlx-lm takes the whole
    prompt's for every token, and an answer's token its own; so do we."""
    args = tiny_args(rope_scaling=ROPES["dynamic"], max_position_embeddings=16)
    stock = stock_model(args)
    ours, theirs = twin_of(stock).make_cache(DENSE[mode]), stock.make_cache()
    model = twin_of(stock)
    ours[0].expect(len(PROMPT))
    for tokens in (PROMPT, *([token] for token in ANSWER)):
        expected = stock(mx.array([tokens]), cache=theirs)[0, -1]
        np.testing.assert_allclose(model(mx.array([tokens]), cache=ours)[0, -1], expected, atol=TOLERANCE)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unannounced"])
def test_dynamic_ntk_in_chunks(announced):
    """mlx-lm rotates each chunk by the context of its own call, so that its answer depends on the chunks. Ours equals
    it where the layers see the same calls: without cuts. Behind a cut every row is rotated by the whole prompt's
    context, which cannot equal mlx-lm's chunks, but equals a prompt of one chunk."""
    args = tiny_args(rope_scaling=ROPES["dynamic"], max_position_embeddings=16)
    stock = stock_model(args)
    whole = stock(mx.array([PROMPT]))[0, -1]
    theirs = feed(stock, stock.make_cache(), PROMPT, 7)[0, -1]
    assert mx.abs(whole - theirs).max() > 0.1
    model = twin_of(stock)
    cache = model.make_cache(LazyConfig.dense())
    if announced:
        cache[0].expect(len(PROMPT))
        np.testing.assert_allclose(model(mx.array([PROMPT]), cache=cache)[0, -1], whole, atol=TOLERANCE)
    else:
        np.testing.assert_allclose(feed(model, cache, PROMPT, 7)[0, -1], theirs, atol=TOLERANCE)


# --- without a cache ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_without_a_cache_there_are_logits_for_every_position(batch, length):
    stock = stock_model(tiny_args())
    tokens = mx.array([random_tokens(length, seed) for seed in range(batch)])
    found = twin_of(stock)(tokens)
    assert found.shape == (batch, length, 64)
    np.testing.assert_allclose(found, stock(tokens), atol=TOLERANCE)


@pytest.mark.parametrize("kind", ROPES)
def test_without_a_cache_with_every_rope(kind):
    args = tiny_args(rope_scaling=ROPES[kind], max_position_embeddings=16)
    stock, tokens = stock_model(args), mx.array([PROMPT])
    np.testing.assert_allclose(twin_of(stock)(tokens), stock(tokens), atol=TOLERANCE)


def test_embeddings_may_come_in_place_of_tokens():
    stock = stock_model(tiny_args())
    model, tokens = twin_of(stock), mx.array([PROMPT])
    embeddings = stock.model.embed_tokens(tokens)
    expected = stock(tokens)
    np.testing.assert_allclose(model(tokens, input_embeddings=embeddings), expected, atol=TOLERANCE)
    cache = model.make_cache(DENSE["keep 1.0"])
    cache[0].expect(len(PROMPT))
    found = model(tokens, cache=cache, input_embeddings=embeddings)
    np.testing.assert_allclose(found[0, -1], expected[0, -1], atol=TOLERANCE)


def test_an_unannounced_prompt_with_no_cut_gives_logits_for_every_position():
    stock = stock_model(tiny_args())
    model, tokens = twin_of(stock), mx.array([PROMPT])
    np.testing.assert_allclose(model(tokens, cache=model.make_cache(LazyConfig.dense())), stock(tokens), atol=TOLERANCE)


def test_checkpoints_may_hold_what_follows_from_the_rest():
    """Rotary frequencies, and a head that is tied to the embedding."""
    model = Model(tiny_args(tie_word_embeddings=True))
    kept = {"model.norm.weight": mx.ones(32)}
    derived = {"lm_head.weight": mx.ones(1), "model.layers.0.self_attn.rotary_emb.inv_freq": mx.ones(1)}
    assert model.sanitize(kept | derived) == kept
    assert "lm_head.weight" in Model(tiny_args()).sanitize(derived)
