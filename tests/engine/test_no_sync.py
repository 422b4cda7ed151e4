"""A decode step in the default mode never waits for the device.

While MLX traces a function for compilation, an array that depends on its arguments has no value, and whatever asks
for one raises: `.item()`, `tolist()`, a conversion to NumPy, a truth value, `mx.eval`. So decode steps that can be
traced, each fed the token that the one before chose, learn nothing from the device. The trace is never run.
"""

import mlx.core as mx
import numpy as np
import pytest
from tiny import feed, noting_model, random_tokens, stock_model, tiny_args, twin_of

from lazymlx.cache.conversation import LazyCache
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model

pytestmark = pytest.mark.unchecked

CUTS = ((2, 0.5), (4, 0.2))
STEPS = 20
PROMPT = random_tokens(300)

DEFAULT = LazyConfig(CUTS, min_tokens=0)
WITHOUT_WAITING = {
    "default": DEFAULT,
    "selected": LazyConfig(CUTS, min_tokens=0, attend="selected"),
    "max": LazyConfig(CUTS, min_tokens=0, reduce="max"),
    "static": LazyConfig(CUTS, min_tokens=0, revive=0),
    "static, selected": LazyConfig(CUTS, min_tokens=0, revive=0, attend="selected"),
    "dense": LazyConfig.dense(),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


def read(model: Model, config: LazyConfig) -> tuple[LazyCache, mx.array]:
    """A conversation that has read the prompt, and its first answer token."""
    cache = model.make_cache(config)
    cache[0].expect(len(PROMPT))
    token = feed(model, cache, PROMPT)[:, -1].argmax(axis=-1)
    mx.eval(token, cache[0].state)
    return cache[0], token


def trace(model: Model, cache: LazyCache, token: mx.array, steps: int = STEPS) -> None:
    """Trace greedy decode steps on a fork of the conversation."""
    fork = cache.fork()

    def answer(token: mx.array) -> mx.array:
        for _ in range(steps):
            token = model(token[None], cache=[fork])[:, -1].argmax(axis=-1)
        return token

    mx.compile(answer)(token)


@pytest.mark.parametrize("mode", WITHOUT_WAITING)
def test_decode_steps_are_built_without_waiting(mode, model):
    cache, token = read(model, WITHOUT_WAITING[mode])
    trace(model, cache, token)


def test_so_are_they_after_a_follow_up_question(model):
    cache, token = read(model, DEFAULT)
    for _ in range(5):
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
    cache.expect(9)
    trace(model, cache, feed(model, [cache], random_tokens(9, seed=1))[:, -1].argmax(axis=-1))


def test_what_does_wait_cannot_be_traced(model):
    """The paper's mode learns from the device how many tokens to revive; the check sees it."""
    cache, token = read(model, LazyConfig.paper(CUTS))
    with pytest.raises((ValueError, RuntimeError), match="function transformation"):
        trace(model, cache, token, steps=2)


def test_how_many_come_back_is_known_beforehand(model):
    """At every second step the budget at each cut, as long as so many wait; the device agrees."""
    cache, token = read(model, DEFAULT)
    first, _ = waiting = cache.aux.waiting_at
    steps = 2 * (first // DEFAULT.revive) + 1  # the last one that revives finds fewer
    for step in range(steps):
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
        if step < steps - 1:
            at_each_cut = (step // DEFAULT.revive_every + 1) * DEFAULT.revive
            assert cache.turn.revived == at_each_cut * len(CUTS)
            assert cache.turn.revived_layers == at_each_cut * sum(len(stage.layers) for stage in cache.stages[1:])
            assert cache.aux.waiting_at == (waiting[0] - (step // 2 + 1) * DEFAULT.revive, waiting[1])
    assert cache.aux.waiting_at == (0, waiting[1] - DEFAULT.revive + first % DEFAULT.revive)
    depth = np.array(cache.aux.depth[: cache.offset])
    assert cache.aux.waiting_at == ((depth == 1).sum(), (depth == 2).sum())


def test_shapes_stay_the_same_from_step_to_step():
    """One new row, and where tokens may come back the budget's, whatever was selected."""
    model, notes = noting_model(stock_model(tiny_args()))
    cache, token = read(model, DEFAULT)
    notes.take()
    for step in range(STEPS):
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
        deep = 1 if step % DEFAULT.revive_every else 1 + DEFAULT.revive
        for call in notes.take():
            assert len(call.rows) == (1 if call.layer < CUTS[0][0] else deep)


def test_there_is_room_for_all_that_come_back(model, monkeypatch):
    """Also where a buffer has a few slots left, but not enough."""
    monkeypatch.setattr("lazymlx.cache.conversation.AHEAD", 0)
    cache, token = read(model, DEFAULT)
    for _ in range(40):
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
        assert all(stage.filled <= stage.capacity for stage in cache.stages)


def test_an_answer_that_called_all_of_it_back_is_lazy_still(model):
    """The prompt did leave tokens behind, and the statistics say how many it kept."""
    cache, token = read(model, DEFAULT)
    kept = cache.turn.kept
    while cache.waiting:
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
    stats = cache.stats()
    assert (stats.mode, stats.kept, stats.computed_fraction) == ("lazy", kept, 1.0)
    assert read(model, LazyConfig.dense())[0].stats().mode == "dense"
