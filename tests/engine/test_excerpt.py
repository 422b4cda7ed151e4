"""What a conversation has read is taken over by another one: exactly in the same place, turned on in another."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny import computed_sets, random_tokens, stock_model, tiny_args, twin_of

from lazymlx.cache.conversation import LazyCache
from lazymlx.cache.rows import unpacked
from lazymlx.config import LazyConfig
from lazymlx.engine.excerpt import Excerpt, take_over
from lazymlx.engine.model import Model

CONFIG = LazyConfig("2:0.5,4:0.2", window=4, links=4, sink=2, recent=4, revive=2, min_tokens=0, round_to=8)
BEFORE, TEXT, QUESTION = (random_tokens(n, seed=n) for n in (20, 60, 12))


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


def reads(model: Model, cache: LazyCache, tokens: list[int]) -> None:
    cache.expect(len(tokens), complete=False)
    model(mx.array([tokens]), cache=[cache])


def asks(model: Model, cache: LazyCache, tokens: list[int], answered: int = 6) -> np.ndarray:
    """Logits of a question and of each token of its answer."""
    cache.expect(len(tokens))
    logits = [model(mx.array([tokens]), cache=[cache])]
    for _ in range(answered):
        logits.append(model(logits[-1][:, -1].argmax(axis=-1)[None], cache=[cache]))
    return np.array(mx.concatenate(logits, axis=1))


def lender(model: Model, config: LazyConfig, *texts: list[int]) -> LazyCache:
    [cache] = model.make_cache(config)
    cache.lend()
    for text in texts:
        reads(model, cache, text)
    return cache


PACKED = replace(CONFIG, kv_bits=8, quantized_kv_start=0, aux_bits=8, kv_group_size=32)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, links=0)], ids=["links", "none"])
def test_in_the_same_place_behind_the_same_text_nothing_differs(model: Model, config: LazyConfig) -> None:
    there = lender(model, config, BEFORE, TEXT)
    asks(model, there, QUESTION)  # rows left the aux cache since
    taking, reading = (lender(model, config, BEFORE) for _ in range(2))
    take_over(model, taking, Excerpt(there, len(BEFORE), len(BEFORE) + len(TEXT)))
    reads(model, reading, TEXT)
    np.testing.assert_allclose(asks(model, taking, QUESTION), asks(model, reading, QUESTION), atol=1e-4)
    assert computed_sets(taking) == computed_sets(reading) and taking.turn == reading.turn


def test_in_another_place_keys_are_turned_and_the_rest_goes_as_it_is(model: Model) -> None:
    there, reading = lender(model, CONFIG, TEXT), lender(model, CONFIG, BEFORE, TEXT)
    here = lender(model, CONFIG, BEFORE)
    take_over(model, here, Excerpt(there, 0, len(TEXT)))
    at = slice(len(BEFORE), len(BEFORE) + len(TEXT))
    for of in ("keys", "values"):  # of the first layer, which depend on nothing but a token and its place
        moved, read = (unpacked(getattr(c.stages[0].layers[0], of).read(at.start, at.stop)) for c in (here, reading))
        np.testing.assert_allclose(np.array(moved), np.array(read), atol=1e-5)
    assert here.lent is not None and there.lent is not None
    assert (np.array(here.lent.parts[0][at]) == np.array(there.lent.parts[0][: len(TEXT)])).all()
    assert np.isfinite(asks(model, here, QUESTION)).all()


def test_what_was_taken_over_can_be_taken_over_again(model: Model) -> None:
    first, second = lender(model, CONFIG, BEFORE, TEXT), lender(model, CONFIG, QUESTION)
    take_over(model, second, Excerpt(first, len(BEFORE), len(BEFORE) + len(TEXT)))
    third, direct = (lender(model, CONFIG, BEFORE) for _ in range(2))
    take_over(model, third, Excerpt(second, len(QUESTION), len(QUESTION) + len(TEXT)))
    take_over(model, direct, Excerpt(first, len(BEFORE), len(BEFORE) + len(TEXT)))
    np.testing.assert_allclose(asks(model, third, QUESTION), asks(model, direct, QUESTION), atol=1e-3)


def test_a_conversation_takes_over_from_itself(model: Model) -> None:
    there = lender(model, CONFIG, BEFORE, TEXT)
    asks(model, there, QUESTION)
    other, own = lender(model, CONFIG, BEFORE, TEXT), there
    asks(model, other, QUESTION)
    for cache, source in ((own, own), (other, there.fork())):
        reads(model, cache, BEFORE)
        take_over(model, cache, Excerpt(source, len(BEFORE), len(BEFORE) + len(TEXT)))
    assert (asks(model, own, QUESTION) == asks(model, other, QUESTION)).all()


def test_lending_changes_no_answer_and_survives_a_fork_and_a_trim(model: Model) -> None:
    lends, plain = lender(model, CONFIG, BEFORE, TEXT), model.make_cache(CONFIG)[0]
    for text in (BEFORE, TEXT):
        reads(model, plain, text)
    assert (asks(model, lends, QUESTION) == asks(model, plain, QUESTION)).all()
    fork = lends.fork()
    fork.trim(fork.offset - len(BEFORE) - 30)
    assert fork.lent is not None and lends.lent is not None
    assert (np.array(fork.lent.parts[0][:50]) == np.array(lends.lent.parts[0][:50])).all()
    assert lends.nbytes - plain.nbytes == lends.lent.nbytes > 0


def test_packed_rows_are_taken_over_too() -> None:
    model = twin_of(stock_model(tiny_args(head_dim=32)))
    there = lender(model, PACKED, BEFORE, TEXT)
    taking, reading = (lender(model, PACKED, BEFORE) for _ in range(2))
    take_over(model, taking, Excerpt(there, len(BEFORE), len(BEFORE) + len(TEXT)))
    reads(model, reading, TEXT)
    np.testing.assert_allclose(asks(model, taking, QUESTION, 0), asks(model, reading, QUESTION, 0), atol=0.5)
