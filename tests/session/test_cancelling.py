"""A prompt that is cancelled, or fails, leaves a plain cache as it was, at whatever row and in whichever stage."""

from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from tiny import computed_sets, random_tokens, stock_model, tiny_args, twin_of

from lazymlx.cache.conversation import LazyCache
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.errors import Cancelled
from lazymlx.generation import generate_step
from lazymlx.prefill import read
from lazymlx.progress import OnProgress, Progress

CUTS = ((2, 0.5), (4, 0.25))
CONFIGS = {
    "default": LazyConfig(CUTS, min_tokens=0),
    "paper": LazyConfig.paper(CUTS),
    "packed": LazyConfig(CUTS, min_tokens=0, kv_bits=8, kv_group_size=32, aux_bits=8),
    "dense": LazyConfig.dense(),
}
DOCUMENT, QUESTION, OTHER = (random_tokens(n, seed=n) for n in (200, 60, 70))
Step = Callable[[list[LazyCache], OnProgress | None], list[np.ndarray]]


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args(head_dim=32)))


def read_only(
    model: Model, tokens: Sequence[int], cache: list[LazyCache], watch: OnProgress | None
) -> list[np.ndarray]:
    read(model, tokens, cache, prefill_step_size=32, on_progress=watch)
    return []


def answered(model: Model, tokens: Sequence[int], cache: list[LazyCache], watch: OnProgress | None) -> list[np.ndarray]:
    given = {"prompt_cache": cache, "prefill_step_size": 32, "max_tokens": 4, "on_progress": watch}
    return [np.array(logprobs) for _, logprobs in generate_step(tokens, model, **given)]


def script(model: Model) -> list[Step]:
    """A document, a question about it, and another one."""
    parts = (read_only, DOCUMENT), (answered, QUESTION), (answered, OTHER)
    return [partial(function, model, tokens) for function, tokens in parts]


def held(cache: LazyCache) -> list[object]:
    """What a conversation knows of its tokens."""
    return [cache.offset, cache.expected, cache.turn, cache.aux.waiting_at, computed_sets(cache)]


@pytest.mark.parametrize("name", CONFIGS)
def test_after_a_cancel_the_prompt_can_be_given_again(name: str, model: Model) -> None:
    """At each report of a document, of a question and of a follow-up."""
    cache, undisturbed = (model.make_cache(CONFIGS[name]) for _ in range(2))
    for step in script(model):
        reports: list[Progress] = []
        expected = step(undisturbed, reports.append)
        before = held(cache[0])
        for n in range(len(reports)):
            heard: list[Progress] = []
            with pytest.raises(Cancelled):
                step(cache, lambda p, heard=heard, n=n: heard.append(p) or len(heard) <= n)
            assert held(cache[0]) == before
        found = step(cache, None)
        assert held(cache[0]) == held(undisturbed[0])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_after_an_error_in_a_layer_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    document, question, _ = script(model)
    cache, undisturbed = (model.make_cache(CONFIGS["default"]) for _ in range(2))
    for each in (cache, undisturbed):
        document(each, None)
    expected, before = question(undisturbed, None), held(cache[0])

    block, calls = type(model.layers[0]), list[int]()
    run = block.__call__

    def fails_in_time(*given, **options) -> mx.array:
        calls.pop()
        return run(*given, **options)

    monkeypatch.setattr(block, "__call__", fails_in_time)
    for n in range(8):  # chunks and stages have some more layers to run
        calls = list(range(n))
        with pytest.raises(IndexError):
            question(cache, None)
        assert held(cache[0]) == before
    monkeypatch.undo()
    for one, other in zip(question(cache, None), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
