"""Decode steps that are traced once and repeated, as on a GPU: they do what steps built one by one do."""

import gc
import weakref
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers
from tiny import computed_sets, feed, random_tokens, stock_model, tiny_args, twin_of
from zoo import pair

from lazymlx.cache.conversation import LazyCache
from lazymlx.config import LazyConfig
from lazymlx.engine import cuts
from lazymlx.engine.model import Model
from lazymlx.engine.selection import Scorer
from lazymlx.errors import StateError
from lazymlx.nn import compiling
from lazymlx.nn.compiling import Replay

pytestmark = pytest.mark.unchecked

CUTS = ((2, 0.5), (4, 0.2))
PROMPT = random_tokens(300)
DEFAULT = LazyConfig(CUTS, min_tokens=0)


class OwnScorer(Scorer):
    """Looks at values, which a trace does not have."""

    def __call__(self, queries, keys, visible):
        return mx.array(np.array(keys.sum(axis=(0, 2))))


CONFIGS = {
    "default": DEFAULT,
    "selected": LazyConfig(CUTS, min_tokens=0, attend="selected"),
    "max": LazyConfig(CUTS, min_tokens=0, reduce="max"),
    "many": LazyConfig(CUTS, min_tokens=0, revive=20),  # more rows than a vector kernel takes
    "packed": LazyConfig(CUTS, min_tokens=0, kv_bits=8, kv_group_size=32, aux_bits=8),
    "packed later": LazyConfig(CUTS, min_tokens=0, kv_bits=8, kv_group_size=32, quantized_kv_start=310),
    "everything until later": LazyConfig(CUTS, min_tokens=310),
    "own scorer": LazyConfig(CUTS, min_tokens=0, scorer=OwnScorer()),
}
WINDOWED = ["gemma3_text", "gpt_oss", "ministral3"]  # a cut must follow a layer that sees everything
FAMILIES = dict.fromkeys(("llama", "internlm3", "mixtral", "phi3"), ((3, 0.5), (5, 0.2)))
FAMILIES |= dict.fromkeys(WINDOWED, ((3, 0.3),))


class Said(NamedTuple):
    """A decode step."""

    logits: np.ndarray
    computed: tuple[frozenset[int], ...]
    depth: np.ndarray


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args(head_dim=32)))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile, whatever the device is."""
    monkeypatch.setattr(compiling, "compiles", lambda: True)


def read(model: Model, config: LazyConfig = DEFAULT, prompt: list[int] = PROMPT) -> tuple[LazyCache, mx.array]:
    """A conversation that has read the prompt, and the first token of its answer."""
    cache = model.make_cache(config)
    cache[0].expect(len(prompt))
    token = feed(model, cache, prompt)[:, -1].argmax(axis=-1)
    mx.eval(token, cache[0].state)
    return cache[0], token


def go_on(model: Model, cache: LazyCache, token: mx.array, steps: int = 24) -> list[Said]:
    """Greedy decode steps."""
    said = []
    for _ in range(steps):
        logits = model(token[None], cache=[cache])
        assert logits is not None
        token = logits[:, -1].argmax(axis=-1)
        said.append(Said(np.array(logits), computed_sets(cache), np.array(cache.aux.depth)))
    return said


def assert_same(some: list[Said], others: list[Said]) -> None:
    for number, (one, other) in enumerate(zip(some, others, strict=True)):
        assert np.allclose(one.logits, other.logits, atol=1e-3, rtol=1e-4), f"step {number}"
        assert one.computed == other.computed, f"step {number}"
        assert np.array_equal(one.depth, other.depth), f"step {number}"


def compare(model: Model, config: LazyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, token = read(model, config)
    fork = cache.fork()
    one_by_one = go_on(model, cache, token)
    assert len({said.computed for said in one_by_one}) == len(one_by_one)
    monkeypatch.setattr(compiling, "compiles", lambda: True)
    assert_same(go_on(model, fork, token), one_by_one)


@pytest.mark.parametrize("name", CONFIGS)
def test_repeated_steps_are_those_built_one_by_one(name: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(model, CONFIGS[name], monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_other_families_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(pair(name)[1], LazyConfig(FAMILIES[name], min_tokens=0), monkeypatch)


def test_a_trace_serves_until_buffers_grow(model: Model, traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    traces, behind_cuts = [], cuts.behind_cuts
    monkeypatch.setattr(cuts, "behind_cuts", lambda *given: traces.append(1) or behind_cuts(*given))
    cache, token = read(model)
    go_on(model, cache, token, steps=10)  # all stages grow together, at the first step
    assert len(traces) == 1
    for stage in cache.stages[1:]:
        stage.grow(1000)
    go_on(model, cache, token, steps=5)
    assert len(traces) == 2
    while cache.aux.waiting_at[0]:
        go_on(model, cache, token, steps=1)
    assert len(traces) <= 3  # the last ones to come back may be fewer
    go_on(model, cache, token, steps=2)
    assert len(traces) <= 4


def test_what_is_scored_first_is_as_long_as_the_tables(model: Model) -> None:
    """So both grow at once, and a trace has to be made anew once, not twice; nor is anything padded."""
    cache, token = read(model, prompt=random_tokens(250))
    for _ in range(20):
        go_on(model, cache, token, steps=1)
        assert cache.stages[0].capacity == cache.aux.places


def test_slots_in_which_nothing_is_any_more_change_nothing(model: Model) -> None:
    """What is forgotten leaves them, more of them than there are positions."""
    cache, token = read(model, prompt=random_tokens(1000))
    cache.trim(300)
    cache.expect(3)
    mx.eval(feed(model, [cache], [1, 2, 3]), cache.state)
    assert cache.aux.places < cache.stages[0].capacity
    fork = cache.fork()
    stage = fork.stages[0]
    stage.positions = stage.positions[: stage.filled]
    for layer in stage.layers:
        layer.keep(slice(0, stage.filled))
    assert_same(go_on(model, cache, token, steps=6), go_on(model, fork, token, steps=6))


def test_a_step_writes_keys_and_values_in_their_place(traced: None) -> None:
    """The device never holds them twice; unless there is a fork, which keeps what it has."""
    model = twin_of(stock_model(tiny_args(head_dim=256)))
    cache, token = read(model, prompt=random_tokens(1200))  # long beside what a step itself takes
    stored = sum(a.nbytes for stage in cache.stages[1:] for a in stage.arrays)

    def more() -> int:
        """What a step takes while it runs."""
        logits = model(token[None], cache=[cache])
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(logits, cache.state)
        return mx.get_peak_memory() - before

    more()  # a prompt leaves no room
    assert max(more() for _ in range(3)) < stored / 4
    fork = cache.fork()
    assert more() > stored
    assert fork.offset + 1 == cache.offset


def test_rows_that_were_packed_stay_so(traced: None, model: Model) -> None:
    """A configuration that asks for other bits is refused, and one that asks for none is told."""
    cache, token = read(model, LazyConfig(CUTS, min_tokens=0, aux_bits=8, kv_group_size=32))
    go_on(model, cache, token, steps=2)
    with pytest.raises(StateError, match="kept in 8 bits, in groups of 32, and cannot be changed to 4 bits"):
        cache.keep_as(LazyConfig(CUTS, min_tokens=0, aux_bits=4, kv_group_size=32))
    with pytest.raises(StateError, match="cannot be changed to 8 bits in groups of 64"):
        cache.keep_as(LazyConfig(CUTS, min_tokens=0))
    cache.keep_as(LazyConfig(CUTS, min_tokens=0, kv_group_size=32))
    go_on(model, cache, token, steps=2)
    assert cache.aux.rows.bits == cache.config.aux_bits == 8


def test_a_fork_stays_as_it_was(model: Model, traced: None) -> None:
    cache, token = read(model)
    go_on(model, cache, token, steps=3)
    fork = cache.fork()
    first = go_on(model, cache, token, steps=5)
    assert_same(go_on(model, fork, token, steps=5), first)


def test_what_an_observer_keeps_is_of_its_step(model: Model, traced: None) -> None:
    cache, token = read(model)
    seen, kept = [], []
    for _ in range(4):
        token = model(token[None], cache=[cache])[:, -1].argmax(axis=-1)
        seen.append(mx.array(cache.aux.depth))
        kept.append(np.array(cache.aux.depth))
        cache.stats()
    assert all(np.array_equal(one, other) for one, other in zip(seen, kept, strict=True))


def test_new_weights_and_adapters_take_effect(traced: None) -> None:
    stock = stock_model(tiny_args())
    model, fresh = twin_of(stock), Model(stock.args)

    def both() -> np.ndarray:
        cache, token = read(fresh)
        fork = cache.fork()
        expected = go_on(fresh, cache, token, steps=3)
        assert_same(go_on(model, fork, token, steps=3), expected)
        return expected[-1].logits

    def change(model: Model) -> None:
        mx.random.seed(1)
        linear_to_lora_layers(model, 2, {"rank": 2, "scale": 20.0, "dropout": 0.0})
        for module in model.modules():
            if "lora_b" in module:
                module["lora_b"] = mx.random.normal(module["lora_b"].shape)

    fresh.load_weights(tree_flatten(stock.parameters()))
    outcomes = [both()]
    changed = tree_flatten(tree_map(lambda w: w * 1.1, stock.parameters()))
    for each in (model, fresh):
        each.load_weights(changed)
    outcomes.append(both())
    for each in (model, fresh):
        change(each)
    outcomes.append(both())
    for each in (model, fresh):
        each.set_dtype(mx.bfloat16)
    cache, token = read(model)
    logits = model(token[None], cache=[cache])
    assert logits is not None and logits.dtype == mx.bfloat16
    assert all(not np.allclose(one, other, atol=1e-2) for one, other in zip(outcomes, outcomes[1:], strict=False))


def test_a_model_goes_when_it_is_let_go(traced: None) -> None:
    model = twin_of(stock_model(tiny_args()))
    go_on(model, *read(model), steps=2)
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_part_that_is_taken_out_is_noticed(traced: None) -> None:
    part = {"weight": mx.array(2.0), "bias": mx.array(1.0)}
    replay = Replay()

    def function(x: mx.array) -> mx.array:
        return x * part["weight"] + part.get("bias", 0.0)

    assert replay(function, "key", [part], mx.array(3.0)).item() == 7.0
    del part["bias"]
    assert replay(function, "key", [part], mx.array(3.0)).item() == 6.0
    assert replay(function, None, [part], mx.array(4.0)).item() == 8.0


def test_a_trace_is_called_with_its_own_key_though_another_thread_makes_one_meanwhile(traced: None) -> None:
    """The other one comes just when the parts have been compared, and before the trace is called."""
    replay, meanwhile = Replay(), []

    class Parts(dict):
        """What it is asked for last is the moment before the call."""

        def __getitem__(self, name: str) -> mx.array:
            for interrupt in meanwhile:
                meanwhile.remove(interrupt)
                interrupt()
            return super().__getitem__(name)

    parts = Parts(weight=mx.array(2.0))

    def times(x: mx.array) -> mx.array:
        return x * 2

    def plus(x: mx.array) -> mx.array:
        return x + 100

    assert replay(times, "times", [parts], mx.array(3.0)).item() == 6.0
    meanwhile.append(lambda: replay(plus, "plus", [parts], mx.array(3.0)))
    assert replay(times, "times", [parts], mx.array(3.0)).item() == 6.0
