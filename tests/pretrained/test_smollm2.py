"""SmolLM2-135M-Instruct, which nobody here trained: dense it is mlx-lm's, and sessions answer sensibly with it.

Small random weights show that the arithmetic is right; real ones that folders, templates, tokenizers and packed weights
as people have them go through, and that an answer is one.
"""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model
from tiny import feed

from lazymlx import load
from lazymlx.config import LazyConfig
from lazymlx.session.session import Session

TEXT = (Path(__file__).parents[2] / "lazymlx" / "eval" / "texts" / "bees.txt").read_text(encoding="utf-8")
CAPITAL = "What is the capital of France?"
SYSTEM = "You are a helpful assistant. Answer in one short sentence."
HALF = LazyConfig("24:0.5", min_tokens=0, recent=8, round_to=1)
DENSE = {"empty schedule": LazyConfig.dense(), "keep 1.0": LazyConfig("10:1.0,20:1.0", min_tokens=0)}


def greedy(model, caches, tokens: list[int], length: int) -> list[int]:
    """The answer to a prompt, by mlx-lm's own way of feeding it."""
    answer, logits = [], feed(model, caches, tokens)
    for _ in range(length):
        answer.append(int(logits[0, -1].argmax()))
        logits = model(mx.array([answer[-1:]]), cache=caches)
    return answer


@pytest.fixture(scope="module")
def tokens(loaded) -> list[int]:
    return loaded[1].encode(TEXT)[:96]


@pytest.fixture(scope="module")
def expected(stock, tokens) -> np.ndarray:
    return np.array(stock(mx.array([tokens]))[0, -1])


@pytest.mark.parametrize("mode", DENSE)
def test_with_nothing_left_behind_its_logits_are_mlx_lms(loaded, tokens, expected, mode):
    model, _ = loaded
    cache = model.make_cache(DENSE[mode])
    cache[0].expect(len(tokens))
    for start in range(0, len(tokens), 40):
        logits = model(mx.array([tokens[start : start + 40]]), cache=cache)
    np.testing.assert_allclose(logits[0, -1], expected, atol=2e-3)


def test_a_system_prompt_a_question_and_a_follow_up_are_answered_as_by_mlx_lm(loaded, stock):
    model, tokenizer = loaded
    session, messages = Session(model, tokenizer, SYSTEM), [{"role": "system", "content": SYSTEM}]
    for question, most in ((CAPITAL, 7), ("And of Italy?", 4)):
        messages.append({"role": "user", "content": question})
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        answer = [r.token for r in session.ask(question, most)]
        assert answer == greedy(stock, stock.make_cache(), prompt, len(answer))
        messages.append(session.messages[-1])
    assert session.messages == messages
    assert "Paris" in messages[2]["content"]


def test_a_document_that_is_half_left_behind_late_is_answered_from_as_densely(loaded):
    model, tokenizer = loaded
    begins = []
    for lazy in (HALF, DENSE["empty schedule"]):
        session = Session(model, tokenizer, lazy=lazy)
        session.read(TEXT[:500])
        begins.append([r.token for r in session.ask("What animals is the text about?", 3)])
        if lazy is HALF:
            assert session.stats.kept[0] < 0.7 * session.stats.prompt_end
    assert begins[0] == begins[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_packed_by_mlx_lm_load_and_answer(first_layer, tmp_path, bits):
    theirs, config = load_model(first_layer)
    theirs, config = quantize_model(theirs, config, group_size=64, bits=bits)
    save_model(tmp_path, theirs)
    save_config(config, tmp_path / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(first_layer / name, tmp_path)
    model, tokenizer = load(str(tmp_path), LazyConfig.dense())
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": CAPITAL}], add_generation_prompt=True)
    theirs = dequantize_model(theirs)
    theirs.set_dtype(mx.float32)
    expected = np.array(theirs(mx.array([prompt]))[0, -1])
    logits = model(mx.array([prompt]), cache=model.make_cache())
    np.testing.assert_allclose(logits[0, -1], expected, atol=2e-3)
    assert next(Session(model, tokenizer).ask(CAPITAL, 1)).token == expected.argmax()


def test_the_last_of_eight_thousand_positions_is_as_in_mlx_lm(first_layer):
    """In one layer, which has both that depend on positions: the rotary embedding and attention."""
    (model, tokenizer), (stock, _) = load(str(first_layer), LazyConfig.dense()), load_model(first_layer)
    stock.set_dtype(mx.float32)
    tokens = (tokenizer.encode(TEXT) * 8)[: model.max_positions]
    assert len(tokens) == 8192
    cache = model.make_cache()
    cache[0].expect(len(tokens))  # else it answers at every position
    found, expected = feed(model, cache, tokens, chunk=256), feed(stock, stock.make_cache(), tokens, chunk=256)
    np.testing.assert_allclose(found[0, -1], expected[0, -1], atol=2e-3)
