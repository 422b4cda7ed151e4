"""Recalling: an answer beside filled tokens against NumPy, and what holds of it."""

from functools import cache, partial
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from looking import LookingReference, Settings
from mlx.utils import tree_flatten
from reference import Llama, Shape
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx.cache.undo import Mark
from lazymlx.calibrate.fit import fit_maps
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.engine.recall import followed
from lazymlx.nn import compiling
from lazymlx.nn.backend import FUSED, PLAIN, SPLIT, trying
from lazymlx.nn.maps import Maps
from lazymlx.prefill import prefill

CUTS = ((2, 0.4), (4, 0.15))
SMALL = {"min_tokens": 0, "round_to": 1, "window": 4, "pool": 5, "sink": 2, "recent": 4, "lookahead": 16}


@cache
def stock(head_dim: int):
    return stock_model(tiny_args(head_dim=head_dim))


@cache
def fitted(head_dim: int) -> Maps:
    texts = [random_tokens(64, seed) for seed in range(12)]
    return fit_maps(twin_of(stock(head_dim)), texts, [2, 4], fingerprint="", bits=None)


def looking(head_dim: int = 8) -> Model:
    model = twin_of(stock(head_dim))
    model.look_with(fitted(head_dim))
    return model


def begun(model: Model, prompt: int = 120, **config):
    """A conversation that has read a prompt."""
    conversation = model.make_cache(LazyConfig(CUTS, **{"filled": "kept", **SMALL, **config}))
    prefill(model, random_tokens(prompt), conversation)
    return conversation


def said(model: Model, conversation, tokens) -> np.ndarray:
    """Logits behind each token of an answer that is given."""
    each = [model(mx.array([[token]]), cache=conversation) for token in tokens]
    return np.array(mx.concatenate([logits[:, -1] for logits in each if logits is not None]))


def reference(settings: Settings) -> LookingReference:
    weights = {name: np.array(w) for name, w in tree_flatten(stock(8).parameters())}
    maps = {
        cut: {
            cut + n: (np.array(layer.factors[0].full()) * np.array(part.scale), np.array(layer.bias))
            for n, layer in enumerate(part.layers)
        }
        for cut, part in fitted(8).cuts.items()
    }
    return LookingReference(Llama(weights, Shape(6, 4, 2, 8)), maps, settings)


@pytest.mark.unchecked
@pytest.mark.parametrize("revive", [0, 3, 40])
@pytest.mark.parametrize("every", [1, 2])
def test_answers_are_the_references(revive, every):
    """The same tokens at every depth, and the same logits, token by token."""
    oracle, model = reference(Settings(CUTS, revive=revive, revive_every=every)), looking()
    conversation = begun(model, revive=revive, revive_every=every)
    oracle.ask(random_tokens(120))
    for token in random_tokens(9, seed=1):
        found = said(model, conversation, [token])
        np.testing.assert_allclose(found[0], oracle.say(token), atol=2e-3)
        depth = np.array(conversation[0].aux.depth[: conversation[0].offset])
        assert depth.tolist() == [oracle.depth[p] for p in range(len(depth))]


def test_what_is_attended_to_comes_back_with_what_follows():
    paid = mx.zeros((40,))
    paid[mx.array([3, 20])] = mx.array([5.0, 1.0])
    expected = [5.0 if 3 <= p < 19 else 1.0 if 20 <= p < 36 else 0.0 for p in range(40)]
    assert followed(paid, mx.zeros((40,), mx.bool_)).tolist() == expected
    safe = mx.arange(40) == 3
    assert max(followed(paid, safe).tolist()) == 1.0


@pytest.mark.parametrize("ways", [SPLIT, FUSED])
def test_few_bits_are_near_to_all_of_them(ways):
    """Four bits of heads of 32 values, multiplied as they are or unpacked."""
    model, tokens, found = looking(32), random_tokens(6, seed=1), []
    for each in (PLAIN, ways):
        with trying(each):
            conversation = begun(model, revive=0)
            found.append((said(model, conversation, tokens), conversation[0].recall.nbytes))
    (exact, whole), (packed, part) = found
    assert np.abs(exact - packed).mean() < 0.2 * np.abs(exact - exact.mean(axis=0)).mean()
    assert part < 0.3 * whole


@pytest.mark.parametrize("ways", [PLAIN, SPLIT, FUSED])
def test_a_repeated_trace_says_the_same(monkeypatch, ways):
    """One for the steps that bring tokens back, one for those between them, and again where room was made."""
    model, tokens, found, traced = looking(32), random_tokens(14, seed=1), [], []
    compiled = mx.compile
    monkeypatch.setattr(mx, "compile", lambda function: traced.append(function) or compiled(function))
    for compiles in (False, True):
        monkeypatch.setattr(compiling, "compiles", lambda compiles=compiles: compiles)
        with trying(ways):
            conversation = begun(model, 300, revive=3)
            found.append(said(model, conversation, tokens))
    np.testing.assert_allclose(*found, atol=1e-4)
    steps = [function for function in traced if isinstance(function, partial)]
    assert 2 <= len(steps) <= 4


def test_an_answer_can_be_undone_copied_and_said_again():
    model, tokens = looking(), random_tokens(7, seed=1)
    conversation = begun(model)
    said(model, conversation, tokens[:3])
    mark, twin = Mark(conversation[0]), conversation[0].fork()
    expected = said(model, conversation, tokens[3:])
    mark.restore(conversation[0])
    for again in (conversation, [twin]):
        np.testing.assert_array_equal(said(model, again, tokens[3:]), expected)


def test_a_prompt_forgets_what_the_answer_before_it_knew():
    model = looking()
    conversation = begun(model)
    said(model, conversation, random_tokens(4, seed=1))
    assert conversation[0].recall is not None
    prefill(model, random_tokens(20, seed=2), conversation)
    assert conversation[0].recall is None
    said(model, conversation, random_tokens(2, seed=3))
    assert conversation[0].recall is not None
    conversation[0].trim(1)
    assert conversation[0].recall is None


@pytest.mark.parametrize("config", [{"filled": "seen"}, {"filled": "choosing"}, {"revive": None}, {"lookahead": 0}])
def test_nothing_is_kept_unless_it_is_wanted(config):
    model = looking()
    conversation = begun(model, **config)
    said(model, conversation, random_tokens(2, seed=1))
    assert conversation[0].recall is None


def test_its_memory_is_counted():
    model = looking(32)
    sizes = []
    for filled in ("seen", "kept"):
        conversation = begun(model, filled=filled, revive=0)
        said(model, conversation, random_tokens(2, seed=1))
        sizes.append((conversation[0].nbytes, conversation[0].stats().kv_bytes))
    assert all(kept > seen for seen, kept in zip(*sizes, strict=True))
    assert sizes[1][1] - sizes[0][1] == pytest.approx(sizes[1][0] - sizes[0][0], abs=1024)


def test_tokens_that_came_back_are_seen_once():
    """All of them come back: the answer goes on as if there were no filled keys at all."""
    model = looking()
    conversation = begun(model, revive=1000, revive_every=1)
    waiting = []
    for token in random_tokens(4, seed=1):
        said(model, conversation, [token])
        waiting.append(conversation[0].waiting)
    assert waiting[0] == 0 and all(a >= b for a, b in pairwise(waiting))
    twin = conversation[0].fork()
    twin.recall = None
    model.look_with(None)
    plain = said(model, [twin], random_tokens(3, seed=2))
    model.look_with(fitted(8))
    np.testing.assert_allclose(said(model, conversation, random_tokens(3, seed=2)), plain, atol=1e-4)
