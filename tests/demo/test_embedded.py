"""Trained models read a passage of the embedded document: what they answer, and what they compute for that.

Schedules are those beside the weights (`lazymlx.json`); document and questions are `lazymlx.demo`'s. The embedded model
finds its evidence early. The 12-layer one does so late, and it quotes better, so it shows what revival is for.
Everything is float32, so that every device answers the same.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_model
from model_folder import HARD_MODEL

from lazymlx import LazyConfig, demo, generate, load, stream_generate
from lazymlx.engine.model import Model
from lazymlx.stats import LazyStats

PASSAGE = 1600  # characters, about 400 tokens
FACTS = [q for q in demo.questions() if q["kind"] == "fact"]
QUOTES = [q for q in demo.questions() if q["kind"] == "quote"]
READINGS = 10  # of a passage, in this file
MOST_SECONDS = 180


@dataclass(frozen=True)
class Reader:
    model: Model
    tokenizer: TokenizerWrapper

    def prompt(self, question: demo.Question, size: int = PASSAGE) -> list[int]:
        """A passage of the document with the answer in it, and the question."""
        text = demo.document()
        start = max(text.index(question["answer"]) - size // 2, 0)
        content = f"{text[start : start + size]}\n\nQuestion: {question['question']}"
        return self.tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def answer(self, question: demo.Question, tokens: int, lazy: LazyConfig | None = None) -> tuple[str, LazyStats]:
        """The greedy answer, and what it cost."""
        return self.reply(self.prompt(question), tokens, lazy)

    def reply(self, prompt: list[int], tokens: int, lazy: LazyConfig | None = None) -> tuple[str, LazyStats]:
        cache = self.model.make_cache(lazy)
        responses = list(stream_generate(self.model, self.tokenizer, prompt, tokens, prompt_cache=cache))
        return "".join(response.text for response in responses), responses[-1].lazy


def reader_of(folder: Path) -> Reader:
    model, tokenizer = load(str(folder), dtype=mx.float32)
    model.lazy = replace(model.lazy, min_tokens=0)
    seconds = READINGS * seconds_to_read(model, PASSAGE // 4)
    if seconds > MOST_SECONDS:
        pytest.skip(f"matrix products are slow here: about {seconds:.0f} s; on Linux, OpenBLAS helps (scripts/test)")
    return Reader(model, tokenizer)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return reader_of(HARD_MODEL)


@pytest.fixture(scope="module")
def embedded() -> Reader:
    return reader_of(demo.MODEL)


def seconds_to_read(model: Model, tokens: int) -> float:
    """Estimated from one matrix product."""
    a, b = mx.ones((tokens, 1024)), mx.ones((1024, 1024))
    mx.eval(a @ b)
    start = perf_counter()
    mx.eval(a @ b + 1)
    parameters = sum(w.size for name, w in tree_flatten(model.parameters()) if "embed" not in name)
    return (perf_counter() - start) * parameters / b.size


@pytest.mark.parametrize("question", FACTS[:3], ids=lambda q: q["answer"])
@pytest.mark.parametrize("which, most", [("reader", 0.9), ("embedded", 0.6)])
def test_a_fact_is_answered_without_computing_all_tokens(which, most, question, request):
    answer, stats = request.getfixturevalue(which).answer(question, 24)
    assert answer.strip() == question["answer"]
    assert stats.mode == "lazy"
    assert stats.computed_fraction < most
    assert all(kept < stats.prompt_tokens for kept in stats.kept)
    assert all(deep < stats.context_tokens for deep in stats.computed[1:])


def test_a_quote_needs_revival(reader):
    """The first token's evidence is not the later ones': static pruning goes on to write something of its own."""
    question, lazy = QUOTES[0], replace(reader.model.lazy, schedule="8:0.1")
    revived, stats = reader.answer(question, 20, lazy)
    static, static_stats = reader.answer(question, 20, replace(lazy, revive=0))
    assert question["answer"].startswith(revived.strip())
    assert not question["answer"].startswith(static.strip())
    assert static_stats.kept == stats.kept
    assert static_stats.revived == 0 < stats.revived
    assert stats.computed_fraction < 0.95


@pytest.fixture(scope="module")
def stock():
    """mlx-lm's own model on the 12-layer one's weights."""
    model = load_model(HARD_MODEL)[0]
    dequantize_model(model)
    model.set_dtype(mx.float32)
    return model


@pytest.mark.parametrize("question", [FACTS[0], QUOTES[0]], ids=lambda q: q["kind"])
def test_the_dense_modes_text_is_mlx_lms(question, reader, stock):
    """And its loop's with ours in it, which selects when everything is kept."""
    prompt = reader.prompt(question, 800)
    expected = mlx_lm.generate(stock, reader.tokenizer, prompt, max_tokens=16)
    assert reader.reply(prompt, 16, LazyConfig.dense())[0] == expected
    options = {"max_tokens": 16, "prompt_cache": reader.model.make_cache(LazyConfig.dense())}
    assert mlx_lm.generate(reader.model, reader.tokenizer, prompt, **options) == expected


def test_mlx_lms_own_loop_answers_lazily(reader):
    """Unmodified, and with a cache of its own making."""
    question = FACTS[0]
    answer = mlx_lm.generate(reader.model, reader.tokenizer, reader.prompt(question), max_tokens=24)
    assert answer.strip() == question["answer"]
    assert answer == generate(reader.model, reader.tokenizer, reader.prompt(question), max_tokens=24)
