"""Importance, smoothing and choice against NumPy, including what softmax never gives: negative scores, and ties."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import Engine, held, random_tokens, stock_model, tiny_args

from lazymlx.config import LazyConfig
from lazymlx.engine.selection import (
    LOW,
    NO_CANDIDATE,
    AttentionScorer,
    Scorer,
    attention,
    best_waiting,
    countdown_from,
    positions_of,
    rank,
    select,
    smoothed,
    top,
)

# Few values, so that ties are frequent: below zero, both zeros, denormal, equal to the last bit but one.
VALUES = (-np.inf, -2.5, -1.0, -1e-40, -0.0, 0.0, 1e-40, 0.1, float(np.nextafter(np.float32(0.1), 1)), 1.0, 3e38)


@st.composite
def scored(draw) -> tuple[list[float], list[bool]]:
    """Scores, and which of them count."""
    n = draw(st.integers(1, 20))
    scores = draw(st.lists(st.sampled_from(VALUES), min_size=n, max_size=n))
    return scores, draw(st.lists(st.booleans(), min_size=n, max_size=n))


def choice(scores, candidates, k: int) -> list[int]:
    """The k best; of equals, the earlier ones."""
    scores = np.asarray(scores, np.float32)
    order = sorted(np.flatnonzero(candidates), key=lambda p: (-scores[p], p))
    return sorted(int(p) for p in order[:k])


def positions(mask: mx.array) -> list[int]:
    return np.flatnonzero(np.array(mask)).tolist()


def flags(values) -> mx.array:
    return mx.array(np.array(values, bool))


def keys_of(scores) -> np.ndarray:
    return np.array(rank(mx.array(np.array(scores, np.float32)), countdown_from(len(scores))))


# --- rank, select ------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(scored())
def test_keys_sort_as_scores_do(given_scores):
    """Strictly: no two positions have the same key, and each key tells its position."""
    scores, _ = given_scores
    keys = keys_of(scores)
    descending = sorted(range(len(scores)), key=lambda p: -keys[p])
    assert len(set(keys)) == len(scores) and NO_CANDIDATE not in keys
    assert descending == sorted(range(len(scores)), key=lambda p: (-np.float32(scores[p]), p))
    assert np.array(positions_of(mx.array(keys), mx.array(len(scores)))).tolist() == list(range(len(scores)))


def test_no_candidate_comes_before_the_lowest_score():
    assert NO_CANDIDATE < keys_of([-np.inf] * 300).min() and NO_CANDIDATE & LOW == 0
    assert -NO_CANDIDATE < 2**63  # as a number with a sign in front of it, it can be written down


@settings(max_examples=200)
@given(scored(), st.integers(0, 25), st.data())
def test_selected_are_the_best_and_the_protected_on_top(given_scores, k, data):
    scores, active = given_scores
    protected = data.draw(st.lists(st.booleans(), min_size=len(active), max_size=len(active)))
    selected = select(mx.array(scores), flags(active), flags(protected), k)
    candidates = np.array(active) & ~np.array(protected)
    on_top = np.flatnonzero(np.array(active) & np.array(protected)).tolist()
    assert positions(selected) == sorted(choice(scores, candidates, k) + on_top)


@settings(max_examples=200)
@given(scored(), st.data())
def test_the_best_that_wait_come_back(given_scores, data):
    """Protected ones first; then by score."""
    scores, active = given_scores
    n = len(scores)
    protected, waiting = (data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(2))
    assume(any(waiting))
    count = data.draw(st.integers(1, sum(waiting)))
    best = best_waiting(mx.array(scores), *map(flags, (active, protected, waiting)), count)
    waiting = np.flatnonzero(waiting).tolist()
    order = sorted(waiting, key=lambda p: (not protected[p], 0 if protected[p] else -np.float32(scores[p]), p))
    assert sorted(np.array(best).tolist()) == sorted(order[:count])


@settings(max_examples=200)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(1, 8), st.data())
def test_the_highest_are_found_in_a_few_blocks(values, block, data):
    """Also where fewer than are wanted are candidates; but no position twice."""
    keys = [(value << 32) + at for at, value in enumerate(values)]
    for at in data.draw(st.sets(st.integers(0, len(keys) - 1))):
        keys[at] = NO_CANDIDATE
    count = data.draw(st.integers(1, len(keys)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lazymlx.engine.selection.BLOCK", block)
        assert np.array(top(mx.array(np.array(keys)), count)).tolist() == sorted(keys)[-count:]


def test_what_is_not_active_comes_back_for_the_sake_of_its_neighbours():
    scores, nothing = mx.array([0.9, 0.1, 0.1, 0.5, 0.2, 0.0]), flags([0] * 6)
    best = best_waiting(scores, flags([0, 0, 1, 1, 1, 0]), nothing, flags([1, 1, 0, 0, 0, 0]), 1, pool=3)
    assert best.tolist() == [1]


@pytest.mark.parametrize("k", [0, 1, 3, 5, 9])
def test_of_equal_scores_the_earlier_position_is_kept(k):
    selected = select(mx.zeros(5), flags([0, 1, 1, 1, 1]), flags([0] * 5), k)
    assert positions(selected) == [1, 2, 3, 4][:k]


def test_a_negative_zero_is_a_zero():
    assert positions(select(mx.array([-0.0, 0.0, -0.0]), flags([1] * 3), flags([0] * 3), 1)) == [0]


def test_scores_of_half_precision_are_ranked():
    assert positions(select(mx.array([0.1, 0.3, 0.2], mx.float16), flags([1] * 3), flags([0] * 3), 1)) == [1]


def test_selection_is_made_of_smoothed_scores():
    """Alone, position 5 is the best; with their neighbours, 0 and 1 are. The last place is nobody's."""
    scores = mx.array([0.3, 0.4, 0.2, 0.0, 0.0, 0.5, 0.0, 0.0, 9.0])
    active, nothing = flags([1] * 8 + [0]), flags([0] * 9)
    assert positions(select(scores, active, nothing, 1)) == [5]
    assert positions(select(scores, active, nothing, 2, pool=3)) == [0, 1]


# --- smoothing ---------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=30),
    st.sampled_from((1, 3, 5, 9, 61)),
)
def test_smoothing_averages_active_neighbours(pairs, pool):
    scores, active = (np.array([*column, 0]) for column in zip(*pairs, strict=True))
    found = np.array(smoothed(mx.array(scores.astype(np.float32)), flags(active), pool))
    for i in np.flatnonzero(active):
        near = [j for j in range(i - pool // 2, i + pool // 2 + 1) if 0 <= j < len(active) and active[j]]
        assert found[i] == pytest.approx(scores[near].mean(), abs=1e-5)


# --- importance --------------------------------------------------------------------------------------


def numpy_attention(queries, keys, visible) -> np.ndarray:
    keys = np.repeat(keys, len(queries) // len(keys), axis=0)
    logits = np.where(visible, queries @ keys.transpose(0, 2, 1), -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 1)])
def test_attention_scores_are_those_of_repeated_keys(heads, kv_heads, masked):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(heads, 3, 8)), rng.normal(size=(kv_heads, 10, 8))
    visible = np.tri(3, 10, 7, dtype=bool) if masked else np.ones((3, 10), bool)
    expected = numpy_attention(queries, keys, visible)
    arrays = mx.array(queries.astype(np.float32)), mx.array(keys.astype(np.float32))
    mask = mx.array(visible) if masked else None
    np.testing.assert_allclose(attention(*arrays, mask), expected, atol=1e-5)
    mean, most = AttentionScorer("mean")(*arrays, mask), AttentionScorer("max")(*arrays, mask)
    np.testing.assert_allclose(mean, expected.mean(axis=1).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(most, expected.mean(axis=1).max(axis=0), atol=1e-5)


def test_attention_of_half_precision_is_computed_in_full():
    """Thousands of small probabilities would not add up in 16 bits."""
    scores = AttentionScorer()(mx.zeros((1, 1, 8), mx.float16), mx.zeros((1, 5000, 8), mx.float16), None)
    assert scores.dtype == mx.float32
    np.testing.assert_allclose(scores, 1 / 5000, rtol=1e-5)


class Latest(Scorer):
    """Prefers what came last; notes what it was given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, queries, keys, visible):
        self.shapes.append((queries.shape, keys.shape))
        return -mx.arange(keys.shape[1], 0, -1).astype(mx.float32)


def test_a_scorer_of_ones_own_decides():
    """At every cut, over the keys of the stage before it, in prefill and in decode."""
    scorer = Latest()
    config = replace(LazyConfig.paper(((2, 0.5), (4, 0.2))), scorer=scorer, window=3)
    engine = Engine(stock_model(tiny_args()), config)
    engine.step("prompt", random_tokens(20))
    assert [held(stage) for stage in engine.cache.stages] == [list(range(20)), list(range(7, 20)), list(range(13, 20))]
    assert scorer.shapes == [((4, 3, 8), (2, 20, 8)), ((4, 3, 8), (2, 13, 8))]
    engine.step("decode", [1])
    assert scorer.shapes[2:] == [((4, 1, 8), (2, 21, 8)), ((4, 1, 8), (2, 14, 8))]
