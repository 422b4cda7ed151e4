"""Whatever is asked of the engine, it is the oracle; and what that implies, said plainly.

Hypothesis draws schedules, protections, modes, chunkings and conversations with follow-ups, trims and forks. What was
computed is not asked of the engine's tables: its layers wrote it down (`tiny.NotingAttention`).
"""

import copy
from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    TOLERANCE,
    Call,
    Engine,
    Performance,
    Rehearsal,
    clear_rehearsal,
    computed_sets,
    feed,
    held,
    random_tokens,
    rehearse,
    rows_of,
    stock_model,
    tiny_args,
    unrolled,
)

from lazymlx.cache.conversation import LazyCache, disjoint, mask_of
from lazymlx.config import LazyConfig
from lazymlx.errors import StateError

pytestmark = pytest.mark.unchecked

LAYERS = 5
CUTS = ((1, 0.5), (3, 0.2))
SMALL = {"window": 3, "pool": 3, "sink": 1, "recent": 2, "revive": 2, "min_tokens": 0, "round_to": 4}
SCRIPT = (("prompt", 30), ("decode", 5), ("prompt", 6), ("decode", 5))


@st.composite
def lazy_settings(draw) -> dict:
    """Arguments of a `LazyConfig`; checked types draw random numbers, which a strategy must not."""
    layers = sorted(draw(st.sets(st.integers(1, LAYERS - 1), min_size=1, max_size=3)))
    keeps = sorted((draw(st.sampled_from((0.05, 0.1, 0.2, 0.34, 0.5, 0.9, 1.0))) for _ in layers), reverse=True)
    choices = {
        "window": (1, 3, 50),
        "pool": (1, 3, 13),
        "reduce": ("mean", "max"),
        "links": (0, 1, 5),
        "sink": (0, 2, 50),
        "recent": (0, 3, 50),
        "attend": ("computed", "selected"),
        "revive": (None, 0, 1, 3),
        "min_tokens": (0, 0, 20),
        "round_to": (1, 8),
    }
    chosen = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    return {"schedule": tuple(zip(layers, keeps, strict=True)), **chosen}


@st.composite
def scripts(draw) -> tuple[tuple[str, int], ...]:
    """A prompt, then anything."""
    event = st.one_of(
        st.tuples(st.just("decode"), st.integers(1, 6)),
        st.tuples(st.just("prompt"), st.sampled_from((1, 2, 5, 12))),
        st.tuples(st.just("trim"), st.sampled_from((1, 3, 8, 20))),
    )
    return (("prompt", draw(st.integers(1, 40))), *draw(st.lists(event, min_size=1, max_size=5)))


conversations = {"lazy": lazy_settings(), "script": scripts(), "seed": st.integers(0, 3)}


def conversation(config: LazyConfig, script: tuple[tuple[str, int], ...], seed: int) -> Rehearsal:
    return rehearse(config, script, seed, num_hidden_layers=LAYERS)


def clear(config: LazyConfig) -> Rehearsal:
    return clear_rehearsal(config, SCRIPT, num_hidden_layers=LAYERS)


@settings(max_examples=15)
@given(**conversations, chunk=st.sampled_from((1, 4, 2048)))
def test_every_conversation_is_the_oracles(lazy, script, seed, chunk):
    """As far as it goes before a near tie."""
    Performance(conversation(LazyConfig(**lazy), script, seed), chunk=chunk).play()


# --- the engine by itself ----------------------------------------------------------------------------


class Invariants:
    """A conversation about which only the invariants are known."""

    def __init__(self, config: LazyConfig, chunk: int):
        self.engine = Engine(stock_model(tiny_args(num_hidden_layers=LAYERS)), config, chunk=chunk)
        self.seen: list[set[int]] = [set() for _ in range(LAYERS)]  # positions computed in each layer

    def play(self, script: tuple[tuple[str, int], ...]) -> None:
        for seed, (kind, number) in enumerate(unrolled(script)):
            if kind == "trim":
                stop = self.engine.cache.offset - min(number, self.engine.cache.offset - 1)
                self.engine.cache.trim(self.engine.cache.offset - stop)
                self.seen = [{p for p in positions if p < stop} for positions in self.seen]
            else:
                self.engine.step(kind, random_tokens(number, seed))
                self.check_step(kind, number, self.engine.notes.take())
            self.check_tables()

    def check_step(self, kind: str, new: int, calls: list[Call]) -> None:
        """No layer computes a position twice; a stage's layers compute the same ones; a budget holds."""
        engine, context = self.engine, self.engine.cache.offset
        for layer in range(LAYERS):
            rows = rows_of(calls, layer)
            assert len(rows) == len(set(rows))
            assert self.seen[layer].isdisjoint(rows)
            assert context - 1 in rows
            self.seen[layer].update(rows)
            revived = sum(p < context - new for p in rows)
            if engine.config.revive == 0 or engine.stage_of(layer) == 0:
                assert revived == 0
            elif kind == "decode" and engine.config.revive is not None:
                assert revived <= engine.config.revive
        if engine.config.attend == "selected":
            active = [set(engine.seen_by(context - 1, calls, layer)) for layer in range(LAYERS)]
            assert all(inner <= outer for outer, inner in pairwise(active))

    def check_tables(self) -> None:
        """What the cache knows agrees with what the layers did, and a token waits in one row of the aux cache."""
        cache = self.engine.cache
        for layer in range(LAYERS):
            table = held(cache.stages[self.engine.stage_of(layer)])
            assert len(table) == len(set(table))
            assert set(table) == self.seen[layer]
        sets = computed_sets(cache)
        assert sets[0] == set(range(cache.offset))
        assert all(deeper <= before for before, deeper in pairwise(sets))
        depth = np.array(cache.aux.depth[: cache.offset])
        assert depth.tolist() == [sum(p in positions for positions in sets) for p in range(cache.offset)]
        waiting = np.flatnonzero(depth < len(sets))
        slots = np.array(cache.aux.slots[: cache.offset])[waiting].tolist()
        assert len(slots) == len(set(slots))
        assert all(0 <= slot < cache.aux.used <= cache.aux.rows.capacity for slot in slots)
        assert cache.aux.waiting_at == tuple(int((depth == cut).sum()) for cut in range(1, len(sets)))


@settings(max_examples=15)
@given(lazy=lazy_settings(), script=scripts(), chunk=st.sampled_from((1, 4, 2048)))
def test_the_invariants_hold(lazy, script, chunk):
    Invariants(LazyConfig(**lazy), chunk).play(script)


# --- the budget --------------------------------------------------------------------------------------


def most_revived(rehearsal: Rehearsal) -> int:
    """Tokens that a decode step brings back at a cut."""
    return max(len(revived) for step in rehearsal.answers for revived in step.revived)


@pytest.mark.parametrize("attend", ["computed", "selected"])
@pytest.mark.parametrize("budget", [0, 1, 3])
def test_a_budget_is_used_and_not_exceeded(budget, attend):
    """Where unlimited revival would take more."""
    config = LazyConfig(CUTS, **SMALL | {"revive": budget, "attend": attend})
    assert most_revived(clear(replace(config, revive=None))) > budget
    rehearsal = clear(config)
    assert most_revived(rehearsal) == budget
    Performance(rehearsal).play()


@settings(max_examples=10)
@given(**conversations)
def test_a_budget_that_never_binds_is_no_budget(lazy, script, seed):
    unlimited = LazyConfig(**lazy | {"revive": None})
    Performance(conversation(unlimited, script, seed), revive=1000).play()


# --- forks -------------------------------------------------------------------------------------------


def snapshot(cache: LazyCache) -> list:
    """Everything that a conversation holds; arrays as their bytes."""
    account = [cache.offset, cache.turn, cache.stats()]
    return account + [held(stage) for stage in cache.stages] + [np.array(a).tobytes() for a in cache.state]


@settings(max_examples=10)
@given(**conversations, at=st.integers(0, 8))
def test_advancing_a_fork_leaves_the_original_as_it_was(lazy, script, seed, at):
    """To the bit; and both go on as the oracle does."""
    original = Performance(conversation(LazyConfig(**lazy), script, seed))
    past, future = original.rehearsal.moments[: at + 1], original.rehearsal.moments[at + 1 :]
    original.play(past)
    before = snapshot(original.cache)
    twin = copy.copy(original)
    twin.caches = [original.cache.fork()]
    twin.play(future)
    twin.cache.trim(3)
    assert snapshot(original.cache) == before
    original.play(future)


@pytest.mark.parametrize("revive", [2, None])
def test_forks_share_a_past_that_was_never_evaluated(revive):
    """They write to the same lazy arrays, in turns."""
    rehearsal = clear(LazyConfig(CUTS, **SMALL | {"revive": revive}))
    original = Performance(rehearsal)
    for moment in rehearsal.moments[:3]:
        original.step(moment.kind, moment.tokens)
    original.notes.take()
    twin = copy.copy(original)
    twin.caches = [original.cache.fork()]
    for moment in rehearsal.moments[3:]:
        for engine in (original, twin):
            engine.compare_step(moment, engine.step(moment.kind, moment.tokens))


@pytest.mark.parametrize("revive", [2, None, 0])
@pytest.mark.parametrize("split", [1, 20, 29])
def test_a_document_is_read_before_its_question_is_known(split, revive):
    """Reading runs stage 0 alone; a fork that is asked the rest is a conversation that was asked it all."""
    rehearsal = clear(LazyConfig(CUTS, **SMALL | {"revive": revive}))
    prompt, *rest = rehearsal.moments
    engine = Performance(rehearsal)
    engine.cache.expect(split, complete=False)
    assert engine.model(mx.array([prompt.tokens[:split]]), cache=engine.caches) is None
    assert {call.layer for call in engine.notes.calls} == {0}
    read = engine.cache
    for _ in range(2):
        engine.caches = [read.fork()]
        engine.cache.expect(len(prompt.tokens) - split)
        logits = feed(engine.model, engine.caches, prompt.tokens[split:])
        np.testing.assert_allclose(logits[0, -1], prompt.step.logits, atol=TOLERANCE)
        engine.compare_tables(prompt)
        engine.notes.take()
        engine.play(rest)


# --- trims -------------------------------------------------------------------------------------------


def test_trimming_everything_is_a_new_conversation():
    rehearsal = clear(LazyConfig(CUTS, **SMALL))
    engine = Performance(rehearsal)
    engine.play()
    assert engine.cache.trim(1000) == rehearsal.moments[-1].length
    assert engine.cache.empty() and engine.cache.size() == 0
    assert computed_sets(engine.cache) == (frozenset(),) * 3
    for moment in rehearsal.moments:
        engine.compare_step(moment, engine.step(moment.kind, moment.tokens))


def test_trimming_a_prompt_that_is_being_read_forgets_its_beginning():
    rehearsal = clear(LazyConfig(CUTS, **SMALL))
    engine = Performance(rehearsal)
    engine.cache.expect(30)
    engine.model(mx.array([random_tokens(7, seed=9)]), cache=engine.caches)
    assert engine.cache.trim(7) == 7
    engine.notes.take()
    engine.play()


def test_a_prompt_that_is_being_read_goes_on_after_a_trim():
    """Five wrong tokens are taken back and the right ones read."""
    prompt, *rest = clear(LazyConfig(CUTS, **SMALL)).moments
    engine = Performance(clear(LazyConfig(CUTS, **SMALL)))
    engine.cache.expect(30)
    engine.model(mx.array([[*prompt.tokens[:15], *random_tokens(5, seed=9)]]), cache=engine.caches)
    engine.cache.trim(5)
    engine.cache.expect(15)
    logits = feed(engine.model, engine.caches, prompt.tokens[15:])
    np.testing.assert_allclose(logits[0, -1], prompt.step.logits, atol=TOLERANCE)
    engine.compare_tables(prompt)
    engine.notes.take()
    engine.play(rest)


# --- protection by the chat template -----------------------------------------------------------------


def test_a_templates_tail_is_protected_besides_the_recent_tokens():
    """Two recent tokens and a tail of 4 are as six recent ones."""
    rehearsal = clear(LazyConfig(CUTS, **SMALL | {"recent": 6}))
    engine = Performance(rehearsal, recent=2)
    for moment in rehearsal.moments:
        if moment.kind == "prompt":
            engine.cache.expect(len(moment.tokens), tail=4)
            logits = feed(engine.model, engine.caches, moment.tokens)
        else:
            logits = engine.step(moment.kind, moment.tokens)
        engine.compare_step(moment, logits)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1))
def test_ranges_of_protected_positions(ranges):
    """Told apart, they are the same positions, each once."""
    inside = [any(start <= place < stop for start, stop in ranges) for place in range(14)]
    apart = disjoint(ranges)
    assert [place for start, stop in apart for place in range(start, stop)] == list(np.flatnonzero(inside))
    np.testing.assert_array_equal(mask_of(ranges, 14), inside)


# --- what a cache's state does not allow -------------------------------------------------------------


@pytest.fixture
def engine() -> Engine:
    return Engine(stock_model(tiny_args()), LazyConfig(CUTS, **SMALL))


def test_a_prompt_is_told_with_at_least_one_token(engine):
    with pytest.raises(StateError, match="at least 1 token, got 0"):
        engine.cache.expect(0)


def test_a_prompt_is_not_told_while_another_is_read(engine):
    engine.cache.expect(9)
    engine.model(mx.array([random_tokens(5)]), cache=engine.caches)
    with pytest.raises(StateError, match="4 of its tokens are to come"):
        engine.cache.expect(9)


def test_no_more_tokens_come_than_were_told(engine):
    engine.cache.expect(3)
    with pytest.raises(StateError, match="expected the last 3 tokens of a prompt, got 4"):
        engine.model(mx.array([random_tokens(4)]), cache=engine.caches)


def test_a_cache_holds_one_conversation(engine):
    with pytest.raises(StateError, match="got a batch of 2"):
        engine.model(mx.zeros((2, 3), mx.int32), cache=engine.caches)
