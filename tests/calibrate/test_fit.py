"""Fitting maps, against ridge regression in NumPy and against what is linear by construction."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from talking import speller
from tiny import random_tokens, stock_model, tiny_args, twin_of
from zoo import pair

from lazymlx.cache.stage import Span
from lazymlx.calibrate.fit import SINK, fit_maps
from lazymlx.calibrate.looking import cuts_to_try, fitting_text, trusted
from lazymlx.calibrate.plan import CalibrationPlan
from lazymlx.errors import MapsError
from lazymlx.eval.encoding import Encoder
from lazymlx.nn.attention import Rows
from lazymlx.nn.maps import R2
from lazymlx.nn.network import Network
from lazymlx.nn.rope import rotate

CHUNKS = [random_tokens(40, seed=seed) for seed in range(12)]


@pytest.fixture(scope="module")
def model():
    return twin_of(stock_model(tiny_args()))


def states_and_targets(model: Network, chunk: list[int], cut: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """A Llama's unit states at a cut, and keys and values in a layer by its own norm and projections."""
    x = model.embedded(mx.array([chunk]))
    for number, block in enumerate(model.layers[: layer + 1]):
        if number == cut:
            at_cut = np.array(x[0], np.float64)
        if number == layer:
            normed, own = block.input_layernorm(x), block.self_attn
            targets = mx.concatenate([own.k_proj(normed), own.v_proj(normed)], axis=-1)
        x = block(x, mask="causal")
    scaled = at_cut / np.sqrt((at_cut**2).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled[SINK:], np.array(targets[0, SINK:], np.float64)


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_is_ridge_regression(model, ridge):
    """On centred states; the sixth and the twelfth chunk are held out."""
    fitted = fit_maps(model, CHUNKS, [2], fingerprint="", ridge=ridge, bits=None)
    pairs = [states_and_targets(model, chunk, 2, 4) for chunk in CHUNKS]
    F, Y = (np.concatenate([p[side] for n, p in enumerate(pairs) if n % 6 != 5]) for side in (0, 1))
    centred = F - F.mean(axis=0)
    A = centred.T @ centred
    W = np.linalg.solve(A + ridge * np.trace(A) / len(A) * np.eye(len(A)), centred.T @ (Y - Y.mean(axis=0)))
    found = fitted.cuts[2].layers[2]
    map_of_unit = np.array(found.factors[0].full().T, np.float64) * np.array(fitted.cuts[2].scale)[:, None]
    np.testing.assert_allclose(map_of_unit, W, atol=3e-3, rtol=3e-3)
    np.testing.assert_allclose(np.array(found.bias), Y.mean(axis=0) - F.mean(axis=0) @ W, atol=1e-2)

    F, Y = (np.concatenate([p[side] for n, p in enumerate(pairs) if n % 6 == 5]) for side in (0, 1))
    lost = (F @ map_of_unit + np.array(found.bias) - Y) ** 2
    have, half = (Y - Y.mean(axis=0)) ** 2, Y.shape[1] // 2
    r2 = fitted.cuts[2].r2[4 - 2]
    assert r2.keys == pytest.approx(1 - lost[:, :half].sum() / have[:, :half].sum(), abs=1e-3)
    assert r2.values == pytest.approx(1 - lost[:, half:].sum() / have[:, half:].sum(), abs=1e-3)


def test_recovers_what_is_linear(model):
    """At the cut itself keys and values are linear in the state; behind it they are not quite."""
    fitted = fit_maps(model, CHUNKS, [2], fingerprint="", ridge=1e-6, bits=None)
    first, *deeper = fitted.cuts[2].r2
    assert len(deeper) == 3
    assert min(first.keys, first.values) > 0.999
    assert all(r2.keys < 0.999 and r2.values < 0.999 for r2 in deeper)


class Storing(Rows):
    """Rows that note which keys and values come to be stored."""

    def store(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.stored = keys, values
        return super().store(keys, values)


@pytest.mark.parametrize(
    "name", ["qwen3", "gemma2", "cohere2", "olmo2", "phi3", "exaone", "stablelm", "gpt_oss", "granite", "qwen2_moe"]
)
def test_what_attention_was_given_tells_its_keys_in_every_family(name):
    """Normed, or projected together with others, or neither: rotated, they are those that are stored."""
    model = pair(name)[1]
    x, rows = model.embedded(mx.array([CHUNKS[0]])), Storing(0, None, Span(context=40))
    model.layers[2](x, mask="causal", cache=rows)
    attention = model.family.attention_of(model.layers[2])
    _, keys, values = (part.transpose(0, 2, 1, 3) for part in attention.project(attention, rows.given))
    if attention.rotated_by is not None:
        keys = rotate(attention[attention.rotated_by], keys, 0, 40)
    for one, other in zip((keys, values), rows.stored, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "cohere2", "phi3", "gpt_oss", "qwen3_vl"])
def test_values_at_the_cut_are_linear_in_every_family(name):
    fitted = fit_maps(pair(name)[1], CHUNKS, [3], fingerprint="", ridge=1e-6, bits=None)
    assert len(fitted.cuts[3].r2) == 3
    assert fitted.cuts[3].r2[0].values > (0.95 if name == "cohere2" else 0.999)  # Cohere's norm takes the mean away


def test_packed_and_low_rank_maps_are_close():
    wide = twin_of(stock_model(tiny_args(hidden_size=64)))
    full, packed, low, same = (
        fit_maps(wide, CHUNKS, [3], fingerprint="", ridge=0.1, bits=bits, rank=rank)
        for bits, rank in ((None, None), (8, None), (None, 12), (None, 60))
    )
    for one, other in zip(full.cuts[3].r2, packed.cuts[3].r2, strict=True):
        assert other.keys == pytest.approx(one.keys, abs=0.01)
    assert packed.nbytes < 0.7 * full.nbytes
    assert len(low.cuts[3].layers[0].factors) == 2
    assert low.nbytes < full.nbytes
    assert all(other.keys > one.keys - 0.2 for one, other in zip(full.cuts[3].r2, low.cuts[3].r2, strict=True))
    assert len(same.cuts[3].layers[0].factors) == 1  # two factors would be larger


def test_a_value_that_is_far_from_zero_in_all_states_does_not_spoil_packed_maps():
    """As in the states of pretrained models, whose norms undo it in front of every layer."""
    wide = twin_of(stock_model(tiny_args(hidden_size=64)))
    embedding = wide.model.embed_tokens
    embedding.weight = embedding.weight + mx.where(mx.arange(64) == 7, 20.0 * mx.abs(embedding.weight).max(), 0.0)
    full, packed = (fit_maps(wide, CHUNKS, [3], fingerprint="", ridge=1e-6, bits=bits) for bits in (None, 4))
    for one, other in zip(full.cuts[3].r2, packed.cuts[3].r2, strict=True):
        assert other.keys == pytest.approx(one.keys, abs=0.05) and other.values == pytest.approx(one.values, abs=0.05)


def test_several_cuts_are_fitted_as_each_alone(model):
    both = fit_maps(model, CHUNKS, [2, 4], fingerprint="").cuts
    for cut in (2, 4):
        assert both[cut].r2 == fit_maps(model, CHUNKS, [cut], fingerprint="").cuts[cut].r2


def test_progress_goes_from_layer_to_layer_and_may_stop_the_work(model):
    told: list[float] = []
    fit_maps(model, CHUNKS, [3], fingerprint="", progress=told.append)
    assert told == sorted(told) and len(told) == len(model.layers) and told[-1] == 1

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_maps(model, CHUNKS, [3], fingerprint="", progress=stop)


def test_too_little_text_and_impossible_cuts_are_refused(model):
    with pytest.raises(MapsError, match="too little text to fit: expected 6 chunks"):
        fit_maps(model, CHUNKS[:5], [3], fingerprint="")
    with pytest.raises(MapsError, match="the shortest of 2"):
        fit_maps(model, [*CHUNKS, [1, 2]], [3], fingerprint="")
    with pytest.raises(MapsError, match="too little text to fit: 60 tokens"):
        fit_maps(model, [chunk[:14] for chunk in CHUNKS[:7]], [3], fingerprint="")
    for cut in (0, 6):
        with pytest.raises(MapsError, match=f"at 1 to 5; got {cut}"):
            fit_maps(model, CHUNKS, [cut], fingerprint="")


def test_cuts_whose_maps_explain_nothing_are_left_out(model):
    maps = fit_maps(model, CHUNKS, [2, 4], fingerprint="")
    useless = replace(maps.cuts[2], r2=tuple(R2(-1.0, 0.9) for _ in maps.cuts[2].r2))
    assert list(trusted(maps).cuts) == [2, 4]
    assert list(trusted(replace(maps, cuts={2: useless, 4: maps.cuts[4]})).cuts) == [4]
    assert trusted(replace(maps, cuts={2: useless})) is None


def test_the_text_to_fit_to_is_of_every_kind_and_as_long_as_it_should_be(model):
    encoder = Encoder(speller())
    chunks = fitting_text(encoder, 12_000, CalibrationPlan())
    texts = [encoder.text(chunk) for chunk in chunks]
    assert 12_000 <= sum(map(len, chunks)) < 20_000
    questions = (
        "alue of key",
        "abel this text",
        "um it up",
        "ontinue the text",
        "say?",
    )  # capitals are no letters here
    assert all(any(question in text for text in texts) for question in questions)
    assert (
        chunks
        == fitting_text(encoder, 12_000, CalibrationPlan())
        != fitting_text(encoder, 12_000, CalibrationPlan(seed=1))
    )


@pytest.mark.parametrize(
    ("layers", "cuts"),
    [
        (2, (1,)),
        (3, (1, 2)),
        (6, (1, 2, 3, 4, 5)),
        (28, (6, 8, 10, 12, 14, 16, 18, 20, 22)),
        (80, tuple(range(16, 65, 6))),
    ],
)
def test_cuts_to_try_lie_between_layers_and_are_few(layers, cuts):
    assert cuts_to_try(layers) == cuts
