"""What a prompt takes, foretold and measured; and what is refused because of it."""

import mlx.core as mx
import numpy as np
import pytest
from talking import DOCUMENT, LAZY, answer, session, speller, talker

from lazymlx.config import LazyConfig
from lazymlx.costs.memory import estimate_memory, memory_limit
from lazymlx.demo import MODEL
from lazymlx.errors import TooLargeError
from lazymlx.generation import stream_generate
from lazymlx.loading.load import load
from lazymlx.nn.maps import CutMap, Factor, LayerMap, Maps, kv_width


@pytest.mark.parametrize(
    "tokens, schedule, step_size", [(768, "4:0.25,8:0.1", 768), (768, "2:0.5", 128), (2048, "1:0.02", 512)]
)
def test_the_estimate_is_what_the_embedded_model_takes(tokens, schedule, step_size):
    model, tokenizer = load(str(MODEL), LazyConfig(schedule))
    prompt = np.random.default_rng(0).integers(10, 8000, size=tokens).tolist()
    mx.clear_cache()
    mx.reset_peak_memory()
    others = mx.get_active_memory() - estimate_memory(model, 1).weights
    list(stream_generate(model, tokenizer, prompt, 1, prefill_step_size=step_size))
    measured = mx.get_peak_memory() - others
    assert estimate_memory(model, tokens, step_size=step_size).total == pytest.approx(measured, rel=0.15)


def test_the_estimate_knows_what_lending_takes():
    model, tokenizer = load(str(MODEL), LazyConfig("4:0.25,8:0.1"))
    prompt = np.random.default_rng(0).integers(10, 8000, size=1024).tolist()
    totals = list[int]()
    for lends in (False, True):
        cache = model.make_cache()
        if lends:
            cache[0].lend()
        list(stream_generate(model, tokenizer, prompt, 1, prompt_cache=cache))
        totals.append(cache[0].nbytes)
    foretold = [estimate_memory(model, 1024, lends=lends).total for lends in (False, True)]
    assert foretold[1] - foretold[0] == pytest.approx(totals[1] - totals[0], rel=0.15)


@pytest.mark.parametrize("filled", ["seen", "kept"])
def test_the_estimate_knows_what_looking_ahead_takes(filled):
    config = LazyConfig("4:0.25,8:0.1", filled=filled)
    model, tokenizer = load(str(MODEL), config)
    rng, width = np.random.default_rng(0), model.hidden_size

    def layer(number: int) -> LayerMap:
        wide = kv_width(model, number)
        return LayerMap((Factor(mx.array(rng.normal(0, 0.05, (wide, width)), mx.float16)),), mx.zeros((wide,)))

    deep = {cut: range(cut, len(model.layers)) for cut in (4, 8)}
    heads = model.family.attention_of(model.layers[0]).kv_heads
    model.look_with(
        Maps(
            "",
            {
                cut: CutMap(cut, (heads,) * len(own), tuple(map(layer, own)), mx.ones((width,)))
                for cut, own in deep.items()
            },
        )
    )
    mx.clear_cache()
    mx.reset_peak_memory()
    others = mx.get_active_memory() - estimate_memory(model, 1).weights
    list(stream_generate(model, tokenizer, rng.integers(10, 8000, size=768).tolist(), 1))
    measured = mx.get_peak_memory() - others
    assert estimate_memory(model, 768).total == pytest.approx(measured, rel=0.15)


def test_parts_add_up_and_follow_the_schedule():
    model = talker()
    dense, lazy = (estimate_memory(model, 4000, config) for config in (LazyConfig.dense(), LAZY))
    assert lazy.total == lazy.weights + lazy.stage_0 + lazy.deep + lazy.aux + lazy.working
    assert lazy.weights == dense.weights
    assert (dense.deep, dense.aux) == (0, 0) and lazy.aux > 0
    assert lazy.stage_0 + lazy.deep < dense.stage_0
    assert estimate_memory(model, 4000, LAZY, step_size=256).working < lazy.working
    assert estimate_memory(model, 100, LAZY, context=3900).stage_0 == lazy.stage_0


def test_a_prompt_that_is_too_large_is_refused_with_the_figure_and_before_it_is_read():
    limit = estimate_memory(talker(), 1900, LAZY, step_size=256).total
    s = session(max_memory=limit)
    before = s.nbytes
    with pytest.raises(
        TooLargeError, match=r"1704 tokens need about \d+.\d MB, .* a prefill step size of 256 would fit"
    ):
        s.read(DOCUMENT * 20)
    assert s.nbytes == before
    s.read(DOCUMENT)
    assert answer(s, "who?")[0]
    s.step_size = 256
    s.read(DOCUMENT * 20)


def refusal(schedule: str, max_memory: int, tokens: int = 3000) -> str:
    prompt = [7] * tokens
    model = talker(LazyConfig(schedule, min_tokens=0))
    with pytest.raises(TooLargeError) as refused:
        next(stream_generate(model, speller(), prompt, 1, max_memory=max_memory))
    return str(refused.value)


def test_the_advice_is_the_least_that_fits():
    needs = {
        (preset, step): estimate_memory(talker(), 3000, LazyConfig(preset, min_tokens=0), step_size=step).total
        for preset in ("dense", "bold", "steep")
        for step in (64, 1024, 2048)
    }
    assert "step size of 1024 would" in refusal("dense", needs["dense", 1024])
    assert "step size of 64 would" in refusal("dense", needs["dense", 64])
    assert "schedule 'bold' with" in refusal("dense", needs["bold", 64])
    assert "no schedule would fit" in refusal("dense", 50_000)


def test_no_limit_means_the_device_s(monkeypatch):
    assert memory_limit() is None or memory_limit() > 1_000_000_000
    others = mx.zeros((1000, 1000))
    mx.eval(others)
    room = mx.get_active_memory() + estimate_memory(talker(), 1704, LAZY).total + 1_000_000
    monkeypatch.setattr("lazymlx.costs.memory.memory_limit", lambda: room)
    session().read(DOCUMENT * 20)
    monkeypatch.setattr("lazymlx.costs.memory.memory_limit", lambda: room - others.nbytes)
    with pytest.raises(TooLargeError, match="the device has room for at most"):
        session().read(DOCUMENT * 20)
