"""Looking ahead: the engine against NumPy set by set, and what holds whatever the maps say."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import LookingReference, Settings, random_maps
from mlx.utils import tree_flatten
from reference import Llama, Shape
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx.cache.undo import Mark
from lazymlx.calibrate.fit import fit_maps
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.generation import generate_step
from lazymlx.nn.maps import CutMap, Factor, LayerMap, Maps
from lazymlx.nn.windows import looked_through
from lazymlx.prefill import Limits, prefill, read

CUTS = ((2, 0.4), (4, 0.15))
SMALL = {"min_tokens": 0, "round_to": 1, "window": 4, "pool": 5, "sink": 2, "recent": 4, "lookahead": 16}


@cache
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


@cache
def fitted() -> Maps:
    return fit_maps(model(), [random_tokens(64, seed) for seed in range(12)], [1, 2, 3, 4], fingerprint="", bits=None)


@pytest.fixture
def looking():
    """The model with fitted maps; without them again afterwards."""
    model().look_with(fitted())
    yield model()
    model().look_with(None)


def reference(settings: Settings) -> LookingReference:
    weights = {name: np.array(w) for name, w in tree_flatten(stock_model(tiny_args()).parameters())}
    maps = {
        cut: {
            cut + n: (np.array(layer.factors[0].full()) * np.array(part.scale), np.array(layer.bias))
            for n, layer in enumerate(part.layers)
        }
        for cut, part in fitted().cuts.items()
    }
    return LookingReference(Llama(weights, Shape(6, 4, 2, 8)), maps, settings)


@pytest.mark.unchecked
@pytest.mark.parametrize("filled", ["kept", "seen", "choosing"])
@pytest.mark.parametrize("cuts", [CUTS, ((3, 0.2),), ((1, 0.6), (2, 0.3), (4, 0.1))])
@pytest.mark.parametrize("chunk", [2048, 50, 7])  # the last: rows that ask come in several parts
def test_prompts_and_follow_ups_are_the_references(looking, cuts, filled, chunk):
    """The same tokens at every depth, and the same logits: a prompt, a shorter question, a longer one."""
    oracle = reference(Settings(cuts, seen=filled != "choosing"))
    conversation = looking.make_cache(LazyConfig(cuts, filled=filled, **SMALL))
    for number, length in enumerate((100, 9, 50)):
        tokens = random_tokens(length, seed=number)
        expected = oracle.ask(tokens)
        found = prefill(looking, tokens, conversation, limits=Limits(chunk))
        depth = np.array(conversation[0].aux.depth[: conversation[0].offset])
        assert depth.tolist() == [oracle.depth[p] for p in range(len(depth))]
        np.testing.assert_allclose(np.array(found[0]), expected, atol=2e-3)


def test_looking_chooses_otherwise_than_the_layer_before_the_cut(looking):
    """Else the comparison above would show nothing."""
    chosen = []
    for lookahead in (0, 16):
        conversation = looking.make_cache(LazyConfig(CUTS, **{**SMALL, "lookahead": lookahead}))
        prefill(looking, random_tokens(150), conversation)
        chosen.append(np.array(conversation[0].aux.depth).tolist())
    assert chosen[0] != chosen[1]


@pytest.mark.unchecked
@settings(max_examples=10)
@given(
    seed=st.integers(0, 5),
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=3),
    chunk=st.sampled_from([7, 64, 2048]),
    revive=st.sampled_from([0, 3, 7, None]),
    filled=st.sampled_from(["kept", "seen", "choosing"]),
    keep=st.floats(0.05, 0.9),
)
def test_whatever_the_maps_say_no_invariant_breaks(seed, lengths, chunk, revive, filled, keep):
    """Each token is computed at most once a layer, sets are nested, and an answer comes."""
    model().look_with(random_maps(seed))
    try:
        config = LazyConfig(((2, keep), (4, keep / 2)), filled=filled, revive=revive, **SMALL)
        conversation = model().make_cache(config)
        for number, length in enumerate(lengths):
            tokens = random_tokens(length, seed=number)
            steps = generate_step(tokens, model(), prompt_cache=conversation, max_tokens=5, prefill_step_size=chunk)
            assert len(list(steps)) == 5
            depth = np.array(conversation[0].aux.depth[: conversation[0].offset])
            for stage, held in enumerate(conversation[0].stages):
                slots = np.array(held.positions[: held.filled])
                assert sorted(slots.tolist()) == np.flatnonzero(depth > stage).tolist()
    finally:
        model().look_with(None)


@pytest.mark.parametrize("filled", ["kept", "seen", "choosing"])
def test_keep_1_is_the_dense_model_whatever_maps_are_loaded(filled):
    model().look_with(random_maps(1))
    try:
        tokens = random_tokens(120)
        conversation = model().make_cache(LazyConfig(((2, 1.0), (4, 1.0)), filled=filled, **SMALL))
        found = prefill(model(), tokens, conversation)
        np.testing.assert_allclose(np.array(found[0]), np.array(model()(mx.array([tokens]))[0, -1]), atol=1e-4)
    finally:
        model().look_with(None)


@pytest.mark.parametrize(
    ("windows", "cut", "stop"),
    [
        ((None,) * 6, 2, 4),
        ((None,) * 6, 3, 5),
        ((None,) * 6, 5, 6),
        ((8, 8, None, 8, 8, None), 3, 6),  # what has a window tells nothing of far tokens
        ((None, 8, 8, None, 8, None, 8, None), 1, 6),
        ((8,) * 6, 2, 4),  # all have one: see `Network.sight`
    ],
)
def test_a_look_goes_through_the_first_half_of_the_layers_that_see_everything(windows, cut, stop):
    assert looked_through(windows, cut) == range(cut, stop)


def test_the_papers_mode_never_looks(looking):
    answers = []
    for maps in (fitted(), None):
        looking.look_with(maps)
        conversation = looking.make_cache(LazyConfig.paper(CUTS))
        answers.append(np.array(prefill(looking, random_tokens(120), conversation)).tolist())
    assert answers[0] == answers[1]


def test_a_cut_without_a_map_is_scored_as_ever(looking):
    config, chosen = LazyConfig(((2, 0.4), (5, 0.2)), **SMALL), []
    for maps in (fitted(), None):
        looking.look_with(maps)
        conversation = looking.make_cache(config)
        prefill(looking, random_tokens(120), conversation)
        chosen.append(np.array(conversation[0].aux.depth).tolist())
    assert chosen[0] == chosen[1]


def test_a_document_is_read_once_and_each_question_looks(looking):
    """Read first and asked then is the same as asked at once; and undone, it is as before."""
    document, question = random_tokens(130), random_tokens(40, seed=1)
    config = LazyConfig(CUTS, **SMALL)
    at_once, in_turn = looking.make_cache(config), looking.make_cache(config)
    expected = prefill(looking, document + question, at_once)
    read(looking, document, in_turn)
    mark = Mark(in_turn[0])
    for _ in range(2):
        found = prefill(looking, question, in_turn)
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-4)
        mark.restore(in_turn[0])


def answered(conversation, tokens) -> np.ndarray:
    """Logits behind each token of an answer that is given."""
    logits = [model()(mx.array([[token]]), cache=conversation) for token in tokens]
    return np.array(mx.concatenate([each[:, -1] for each in logits if each is not None]))


def exact_map(layer: int) -> Maps:
    """Of a cut at the last layer: what its own projections make of a state."""
    own = model().layers[layer]
    weight = mx.concatenate([own["self_attn"][name]["weight"] for name in ("k_proj", "v_proj")])
    to_last = LayerMap((Factor(weight * own["input_layernorm"]["weight"]),), mx.zeros(weight.shape[0]))
    return Maps("", {layer: CutMap(layer, (own["self_attn"].kv_heads,), (to_last,), mx.ones(weight.shape[1]))})


@pytest.mark.parametrize("filled", ["kept", "seen", "choosing"])
def test_an_answer_misses_nothing_if_what_is_kept_of_the_rest_is_right(filled):
    """In the layer behind a cut keys and values are linear in the state, so that a map can be exact: then the answer is
    the dense model's where they are kept, and only there."""
    prompt, answer = random_tokens(100), random_tokens(6, seed=1)
    model().look_with(exact_map(5))
    try:
        conversation = model().make_cache(LazyConfig(((5, 0.1),), filled=filled, revive=0, **SMALL))
        prefill(model(), prompt, conversation)
        dense = np.array(model()(mx.array([prompt + answer]))[0, -len(answer) :])
        assert np.allclose(answered(conversation, answer), dense, atol=1e-3) == (filled == "kept")
    finally:
        model().look_with(None)
