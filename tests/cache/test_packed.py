"""Keys, values and aux rows in few bits.

What is packed is an approximation, so the tests ask for three things: that packing is mlx-lm's, that 8 bits come close,
and that nothing else changes: what is selected when scores are clear, sizes, undoing, saving.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.base import quantized_scaled_dot_product_attention
from mlx_lm.models.cache import QuantizedKVCache
from talking import speller
from tiny import stock_model, tiny_args, twin_of

from lazymlx import LazyConfig
from lazymlx.cache.rows import Quantized, RowBuffer
from lazymlx.cache.stage import KeysValues, Span
from lazymlx.cache.undo import Mark
from lazymlx.costs.memory import estimate_memory
from lazymlx.engine.model import Model
from lazymlx.errors import ConfigError, StateError
from lazymlx.generation import stream_generate
from lazymlx.nn.attend import attend, probabilities
from lazymlx.session.session import Session

pytestmark = pytest.mark.unchecked

WIDE = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
LAZY = LazyConfig("3:0.4", window=3, recent=2, min_tokens=0, round_to=4, revive=2, kv_group_size=32)
TOKENS = np.random.default_rng(2).integers(64, size=60).tolist()


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args(**WIDE)))


def talk(model: Model, config: LazyConfig) -> tuple[list[np.ndarray], list]:
    """A prompt in chunks, an answer and a follow-up: the logits of every step, and the cache."""
    cache, logits = model.make_cache(config), []
    cache[0].expect(30)
    for start, stop in ((0, 12), (12, 29), (29, 30)):
        out = model(mx.array([TOKENS[start:stop]]), cache=cache)
    logits.append(np.array(out[0, -1]))
    for at in range(30, 36):
        logits.append(np.array(model(mx.array([TOKENS[at : at + 1]]), cache=cache)[0, -1]))
    cache[0].expect(14)
    model(mx.array([TOKENS[36:49]]), cache=cache)
    logits.append(np.array(model(mx.array([TOKENS[49:50]]), cache=cache)[0, -1]))
    return logits, cache


# --- stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 2, 3, 4, 5, 6, 8])
def test_a_store_gives_back_what_it_was_given(bits):
    """Up to the step of its bits, in every way to write and to read."""
    rows = mx.random.normal((1, 2, 10, 64))
    first = rows[:, :, :6]
    store = RowBuffer(2, bits, 32)
    store.write(first, 0, 6)
    store.write(rows[:, :, 6:], mx.arange(6, 10), 10)
    tolerance = 1e-6 if bits is None else 8 / 2**bits
    read = store.read(0, 10)
    np.testing.assert_allclose(read.unpacked() if isinstance(read, Quantized) else read, rows, atol=tolerance)
    slots = mx.array([7, 1])
    np.testing.assert_allclose(store.at(slots), rows[:, :, slots], atol=tolerance)
    store.put(slots, rows[:, :, :2])
    np.testing.assert_allclose(store.at(slots), rows[:, :, :2], atol=tolerance)
    assert store.capacity == 256
    assert mx.array_equal(first, rows[:, :, :6])  # though it was the buffer at first


def test_rows_of_which_no_more_will_come_are_not_copied():
    rows = mx.random.normal((1, 2, 6, 64))
    store = RowBuffer(2)
    store.write(rows, 0, 6)
    assert store.capacity == 6
    store.put(mx.array([3]), mx.zeros((1, 2, 1, 64)))
    assert store.read(3, 4).sum() == 0 and rows[:, :, 3].abs().sum() > 0


@pytest.mark.parametrize("width", [3, 4, 7])
@pytest.mark.parametrize("kept, given", [("float16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float16")])
def test_rows_move_whatever_their_size_and_type(width, kept, given):
    """As words where they can; and what was there before stays with whoever else has it."""
    rows = mx.random.normal((5, width)).astype(getattr(mx, kept))
    store, slots = RowBuffer(0), mx.array([3, 0])
    store.write(rows, 0, 5)
    twin, handle = store.fork(), store.parts[0]
    new = mx.array(np.arange(2 * width).reshape(2, width) / 4).astype(getattr(mx, given))
    store.put(slots, new)
    assert mx.array_equal(store.at(slots), new.astype(rows.dtype)) and store.at(slots).dtype == rows.dtype
    assert mx.array_equal(store.at(mx.array([1, 2, 4])), rows[mx.array([1, 2, 4])])
    assert mx.array_equal(twin.at(slots), rows[slots]) and mx.array_equal(handle, rows)


def test_packed_rows_where_nothing_is_missing(model):
    """With all revived, a step may find that there is nothing to take."""
    config = replace(LAZY, schedule="3:0.9", revive=None, aux_bits=8)
    logits, cache = talk(model, config)
    assert all(np.isfinite(each).all() for each in logits) and cache[0].computed()[1] > 0


def test_packing_keeps_to_the_slots():
    """Stores that are cut, joined, padded, forked or saved hold the same bits, not bits that were packed twice."""
    rows = mx.random.normal((40, 64))
    store = RowBuffer(0, 4, 32)
    store.write(rows, 0, 40)
    fork = store.fork()
    moved = store.of(slice(20)).joined(store.of(mx.arange(20, 40))).padded(3)
    for first, second in zip(store.of(slice(40)).parts, moved.of(slice(40)).parts, strict=True):
        assert mx.array_equal(first, second)
    assert not np.array(moved.at(mx.array([42]))).any()
    store.put(mx.array([0]), mx.zeros((1, 64)))
    assert np.array(fork.at(mx.array([0]))).any()
    again = RowBuffer(0, 4, 32).restored("rows", fork.named("rows"))
    assert all(mx.array_equal(a, b) for a, b in zip(again.parts, fork.parts, strict=True))


def test_a_store_that_is_packed_later():
    rows = mx.random.normal((40, 64))
    plain, packed = RowBuffer(0), RowBuffer(0, 8, 32)
    for store in (plain, packed):
        store.write(rows, 0, 40)
    plain.pack(8, 32)
    plain.pack(8, 32)  # again: nothing is left to do
    for a, b in zip(plain.of(slice(40)).parts, packed.of(slice(40)).parts, strict=True):
        assert mx.array_equal(a, b)


# --- attention ------------------------------------------------------------------------------------


@given(
    bits=st.sampled_from([4, 8]),
    rows=st.integers(1, 20),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    seed=st.integers(0, 100),
)
def test_packed_attention_is_mlx_lms(bits, rows, heads, seed):
    """A few rows are multiplied with what is packed, many with what was unpacked; mlx-lm's has one way for both."""
    rng = np.random.default_rng(seed)
    H, H_kv = heads
    queries, keys, values = (
        mx.array(rng.normal(size=(1, h, n, 32)).astype(np.float32)) for h, n in ((H, rows), (H_kv, 30), (H_kv, 30))
    )
    mask = mx.array(rng.random((rows, 30)) < 0.5) | (mx.arange(30) == 0)
    layer, theirs = KeysValues(), QuantizedKVCache(group_size=32, bits=bits)
    layer.pack(bits, 32)
    layer.append(keys, values, Span(0, 30, 30, 30))
    copy = mx.array(queries)  # theirs scales its argument in place
    expected = quantized_scaled_dot_product_attention(
        copy, *theirs.update_and_fetch(keys, values), scale=0.3, mask=mask, group_size=32, bits=bits
    )
    np.testing.assert_allclose(attend(queries, *layer.read(0, 30), scale=0.3, mask=mask), expected, atol=1e-4)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("mask", [None, "causal", "array"])
@pytest.mark.parametrize("most", [1 << 27, 300])
def test_explicit_attention_is_the_definition(monkeypatch, softcap, with_sinks, mask, most):
    """With caps, sinks, few keys at a time: against the formula, written out."""
    monkeypatch.setattr("lazymlx.nn.attend.MOST_LOGITS", most)
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, h, n, 16)).astype(np.float32) for h, n in ((4, 9), (2, 20), (2, 20)))
    sinks = rng.normal(size=4).astype(np.float32) if with_sinks else None
    seen = {None: np.ones((9, 20), bool), "causal": np.tri(9, 20, 11, bool)}.get(mask, rng.random((9, 20)) < 0.6)
    seen[:, 0] = True
    logits = np.einsum("bhld,bhsd->bhls", q, np.repeat(k, 2, axis=1)) * 0.5
    logits = np.where(seen, logits if softcap is None else np.tanh(logits / softcap) * softcap, -np.inf)
    weight = np.exp(logits)
    total = weight.sum(-1, keepdims=True) + (0 if sinks is None else np.exp(sinks)[:, None, None])
    expected = np.einsum("bhls,bhsd->bhld", weight / total, np.repeat(v, 2, axis=1))
    given_mask = mx.array(seen) if mask == "array" else mask
    got = attend(
        *map(mx.array, (q, k, v)),
        scale=0.5,
        mask=given_mask,
        softcap=softcap,
        sinks=None if sinks is None else mx.array(sinks),
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    scores = probabilities(
        mx.array(q) * 0.5,
        mx.array(k),
        mx.array(seen),
        softcap=softcap,
        sinks=None if sinks is None else mx.array(sinks),
    )
    np.testing.assert_allclose(scores, weight / total, atol=1e-5)


# --- conversations --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
def test_a_dense_conversation_is_mlx_lms(bits):
    """Told nothing and with no cut, every call is mlx-lm's with its own quantised caches."""
    stock = stock_model(tiny_args(**WIDE))
    ours = twin_of(stock)
    cache = ours.make_cache(LazyConfig((), kv_bits=bits, kv_group_size=32, quantized_kv_start=0))
    theirs = [QuantizedKVCache(group_size=32, bits=bits) for _ in stock.layers]
    for start, stop in ((0, 12), (12, 29), (29, 30), (30, 31), (31, 45)):
        tokens = mx.array([TOKENS[start:stop]])
        np.testing.assert_allclose(ours(tokens, cache=cache), stock(tokens, cache=theirs), atol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "storage"), [((), {"kv_bits": 8}), ("3:0.4", {"aux_bits": 8}), ("3:1.0", {"kv_bits": 8})], ids=str
)
def test_eight_bits_come_close(model, schedule, storage):
    """Where the same tokens are selected: keys in few bits may turn a near tie, hidden states behind one cut cannot.
    Random weights make much of small differences."""
    config = LazyConfig(**{**vars(LAZY), "schedule": schedule, "quantized_kv_start": 0})
    plain, _ = talk(model, config)
    packed, cache = talk(model, LazyConfig(**{**vars(config), **storage}))
    for number, (a, b) in enumerate(zip(plain, packed, strict=True)):
        assert 0 < np.abs(a - b).mean() < 0.25 * np.abs(a).mean(), f"step {number}"
    assert cache[0].packed == ("kv_bits" in storage)


def test_what_is_packed_takes_as_little_as_it_should(model):
    first, second = (
        talk(model, LazyConfig(**{**vars(LAZY), **bits, "links": 0, "quantized_kv_start": 0}))[1][0]
        for bits in ({}, {"kv_bits": 4, "aux_bits": 8})
    )
    plain, packed = first.stats(), second.stats()
    positions = sum(stage.positions.nbytes for stage in second.stages)  # which are not packed, nor are counts
    assert packed.kv_bytes < plain.kv_bytes * (4 / 32 + 2 / 32) + positions
    assert packed.aux_bytes < plain.aux_bytes * (8 / 32 + 2 / 32) + 3000


@pytest.mark.parametrize("start", [0, 12, 49, 50])
def test_packing_begins_where_it_was_told_to(model, start):
    """With the first tokens that come when there is so much context, as in mlx-lm."""
    _, cache = talk(model, LazyConfig(**{**vars(LAZY), "kv_bits": 4, "quantized_kv_start": start}))
    assert cache[0].packed == (start <= 49)  # where the last call began


def test_a_trimmed_and_a_forked_conversation_stay_packed(model):
    config = LazyConfig(**{**vars(LAZY), "kv_bits": 8, "aux_bits": 8, "quantized_kv_start": 0})
    _, cache = talk(model, config)
    fork = cache[0].fork()
    following = mx.array([[5]])
    expected = np.array(model(following, cache=cache))
    np.testing.assert_array_equal(model(following, cache=[fork]), expected)
    fork.trim(10)
    assert fork.packed and all(layer.keys.bits == 8 for stage in fork.stages for layer in stage.layers)
    assert np.isfinite(np.array(model(following, cache=[fork]))).all()


def test_a_mark_brings_packed_rows_back_bit_by_bit(model):
    config = LazyConfig(**{**vars(LAZY), "kv_bits": 8, "aux_bits": 4, "quantized_kv_start": 0})
    _, [cache] = talk(model, config)
    mark = Mark(cache)
    runs = []
    for _ in range(2):
        runs.append([np.array(model(mx.array([[token]]), cache=[cache])) for token in TOKENS[50:56]])
        mark.seal(cache)
        mark.restore(cache)
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_packed_document_comes_back(model, tmp_path):
    config = LazyConfig(**{**vars(LAZY), "kv_bits": 8, "aux_bits": 8, "quantized_kv_start": 0})
    big = twin_of(stock_model(tiny_args(**WIDE, vocab_size=8192)))
    session = Session(big, speller(), lazy=config)
    session.read("abcde " * 20)
    for _ in range(2):  # before the first question, nothing is computed behind the cut
        session.save(tmp_path / "document")
        again = Session.open(tmp_path / "document", big, speller())
        np.testing.assert_array_equal(logprobs_of(again), logprobs_of(session))


@pytest.mark.parametrize(
    "change, options",
    [
        ({"kv_bits": 8, "quantized_kv_start": 55}, {}),
        ({"quantized_kv_start": 0}, {"kv_bits": 8}),
        ({}, {"aux_bits": 8}),
    ],
    ids=["by its length", "by an option", "the aux cache"],
)
def test_what_a_turn_packed_stays_packed_when_it_is_undone(tmp_path, change, options):
    config = LazyConfig(**{**vars(LAZY), **change})
    big = twin_of(stock_model(tiny_args(**WIDE, vocab_size=8192)))
    session = Session(big, speller(), lazy=config)
    session.read("abcde " * 9)
    logprobs_of(session)
    logprobs_of(session, **options)
    for _ in range(2):
        session.undo()
        session.save(tmp_path / "document")
        again = Session.open(tmp_path / "document", big, speller())
        np.testing.assert_array_equal(logprobs_of(again), logprobs_of(session))
        session.undo()


def logprobs_of(session: Session, **options) -> np.ndarray:
    return np.stack([np.array(response.logprobs) for response in session.ask("what?", 4, **options)])


def test_options_of_mlx_lms_name(model):
    big = twin_of(stock_model(tiny_args(**WIDE, vocab_size=8192)))
    big.lazy = big.resolve(LazyConfig(**{**vars(LAZY), "kv_group_size": 64}))
    options = {"max_tokens": 3, "kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0, "aux_bits": 8}
    *_, last = stream_generate(big, speller(), TOKENS, **options)
    cache = last.cache
    assert cache.packed and cache.aux.rows.bits == 8
    *_, last = stream_generate(big, speller(), TOKENS, max_tokens=3, prompt_cache=[cache])
    with pytest.raises(StateError, match="kept in 8 bits, in groups of 32, and cannot be changed to 4 bits"):
        next(stream_generate(big, speller(), TOKENS, prompt_cache=[cache], kv_bits=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kv_bits": 7}, "kv_bits: must be one of None, 2, 3, 4, 5, 6, 8, got 7"),
        ({"kv_group_size": 16}, "kv_group_size: must be one of 32, 64, 128, got 16"),
        ({"aux_bits": True}, "aux_bits: must be one of None, 2, 3, 4, 5, 6, 8, got True"),
        ({"quantized_kv_start": -1}, "quantized_kv_start: must be a whole number of at least 0, got -1"),
    ],
)
def test_what_cannot_be_packed_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LazyConfig(**settings)


def test_groups_that_do_not_divide_a_head_are_refused(model):
    with pytest.raises(ConfigError, match="kv_bits: rows of 32 values .* groups of 64; give kv_group_size 32"):
        model.make_cache(LazyConfig("3:0.5", kv_bits=8))
    with pytest.raises(ConfigError, match="aux_bits: rows of 64 values .* groups of 128; give kv_group_size 32 or 64"):
        model.make_cache(LazyConfig("3:0.5", aux_bits=8, kv_group_size=128))


def test_the_estimate_knows_of_packing(model):
    plain, packed = (
        estimate_memory(model, 4000, LazyConfig(**{**vars(LAZY), **bits, "links": 0, "quantized_kv_start": 0}))
        for bits in ({}, {"kv_bits": 4, "aux_bits": 8})
    )
    assert packed.stage_0 == plain.stage_0 * (4 / 32 + 2 / 32)
    assert packed.aux == plain.aux * (8 / 32 + 2 / 32)
