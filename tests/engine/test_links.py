"""What the most important tokens attend to: the parts by hand. That the engine keeps what the oracle keeps is tested
with all conversations (test_invariants.py)."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import stock_model, tiny_args, twin_of

from lazymlx.config import LazyConfig
from lazymlx.costs.memory import estimate_memory
from lazymlx.engine.links import by_token, most, query_buffer, widely, with_links


@pytest.mark.parametrize("width, packed", [(64, True), (192, True), (96, False), (8, False)])
def test_queries_are_packed_where_groups_divide_them(width, packed):
    rows = mx.random.normal((5, width), key=mx.random.key(0))
    store = query_buffer(width)
    store.write(rows, 0, 5)
    assert (store.nbytes < rows.nbytes / 6 * store.capacity / 5) == packed
    error = mx.abs(store.at(mx.array([3, 1])) - rows[mx.array([3, 1])]).max()
    assert error < (0.5 if packed else 1e-6)


def test_a_token_s_queries_are_one_row():
    queries = mx.arange(24, dtype=mx.float32).reshape(1, 2, 3, 4)
    assert by_token(queries).tolist() == [
        [*range(4), *range(12, 16)],
        [*range(4, 8), *range(16, 20)],
        [*range(8, 12), *range(20, 24)],
    ]


def test_importance_spreads_twice_over_candidates_alone():
    importance = mx.array([9.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0])
    wide = np.array(widely(importance, mx.array([False] + [True] * 5 + [False]), 3))
    np.testing.assert_allclose(wide[1:6], [1.0, 4 / 3, 2.0, 4 / 3, 1.0], atol=1e-6)


def test_the_most_important_are_asked_the_earlier_of_equals_first():
    importance, candidates = mx.array([5.0, 1.0, 3.0, 3.0, 0.0]), mx.array([False, True, True, True, False])
    assert set(most(importance, candidates, 2).tolist()) == {2, 3}
    assert most(importance, candidates, 1).tolist() == [2]
    assert set(most(importance, candidates, 5).tolist()) == {1, 2, 3, 4}, "the last place stands for nobody"


def test_links_count_as_much_as_importance():
    importance = mx.array([0.0, 0.3, 0.1, 0.0, 0.6])
    candidates = mx.array([True, True, True, True, False])
    attention = mx.array([[0.5, 0.1, 0.2, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0, 1.0]])
    found = np.array(with_links(importance, candidates, mx.array([2, 1]), mx.array([0.3, 0.1]), attention, reach=1))
    # of what 2 attends to, only 0 is a candidate and no neighbour; 1 attends to no candidate
    np.testing.assert_allclose(found, [0.4, 0.3, 0.1, 0.0, 0.6], atol=1e-6)


def test_nothing_linked_changes_nothing():
    importance = mx.array([0.2, 0.5, 0.3])
    nothing = mx.zeros((1, 3))
    found = with_links(importance, mx.array([True] * 3), mx.array([1]), mx.array([1.0]), nothing, reach=1)
    assert found.tolist() == importance.tolist()


def test_queries_are_kept_where_they_will_be_asked():
    model = twin_of(stock_model(tiny_args()))
    kept = {}
    for links in (0, 2):
        [cache] = model.make_cache(LazyConfig("2:0.5", min_tokens=0, links=links))
        cache.expect(20)
        model(mx.arange(20)[None], cache=[cache])
        kept[links] = cache.prompt_queries.nbytes
        assert cache.stats().aux_bytes >= kept[links]
    assert kept[0] == 0 < kept[2]
    with_them, without = (estimate_memory(model, 4000, LazyConfig("2:0.5", links=n)).aux for n in (2, 0))
    assert with_them > without
