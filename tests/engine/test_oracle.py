"""The engine against the oracle, step by step: the same sets exactly, the same logits within rounding.

A conversation is a prompt, 10 decode steps, a follow-up question with its answer, and a third one. Compared are, in
every layer, the rows that were computed and the keys that the last token saw, and what the cache says of itself.
"""

import pytest
from tiny import Performance, clear_rehearsal

from lazymlx.config import LazyConfig

pytestmark = pytest.mark.unchecked

SCRIPT = (("prompt", 60), ("decode", 10), ("prompt", 11), ("decode", 4), ("prompt", 5), ("decode", 4))
LONG = (("prompt", 256), *SCRIPT[1:])
CUTS = ((2, 0.5), (4, 0.2))
SMALL = {"window": 4, "pool": 3, "sink": 2, "recent": 3, "revive": 2, "min_tokens": 0, "round_to": 8}

CONFIGS = {
    "paper": LazyConfig.paper(CUTS),
    "paper, one cut": LazyConfig.paper(((3, 0.3),)),
    "paper, four cuts": LazyConfig.paper(((1, 0.7), (2, 0.5), (3, 0.3), (5, 0.1))),
    "scaled default": LazyConfig(CUTS, **SMALL),
    "selected": LazyConfig(CUTS, **SMALL | {"attend": "selected"}),
    "max": LazyConfig(CUTS, **SMALL | {"reduce": "max"}),
    "all revived": LazyConfig(CUTS, **SMALL | {"revive": None}),
    "budget of 1": LazyConfig(CUTS, **SMALL | {"window": 1, "pool": 1, "revive": 1}),
    "static": LazyConfig(CUTS, **SMALL | {"revive": 0}),
    "static, selected": LazyConfig(CUTS, **SMALL | {"revive": 0, "attend": "selected"}),
    "dense until 80 tokens": LazyConfig(CUTS, **SMALL | {"min_tokens": 80}),
    "four cuts": LazyConfig(((1, 0.7), (2, 0.5), (3, 0.3), (5, 0.1)), **SMALL),  # tokens go on through several at once
    "wide window": LazyConfig(CUTS, **SMALL | {"window": 12, "pool": 13}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_engine_is_the_oracle_at_every_step(name):
    rehearsal = clear_rehearsal(CONFIGS[name], SCRIPT)
    revived = sum(len(positions) for step in rehearsal.answers for positions in step.revived)
    assert bool(revived) == (CONFIGS[name].revive != 0), "the script does not show what it should"
    Performance(rehearsal).play()


def test_engine_is_the_oracle_with_the_defaults_as_shipped():
    """But for `min_tokens`, since the oracle takes long over prompts that are as long as they should be."""
    rehearsal = clear_rehearsal(LazyConfig(CUTS, min_tokens=0), LONG)
    assert [len(active) for active in rehearsal.steps[0].active] == [256, 192, 128]
    assert rehearsal.moments[-1].revived > 30
    Performance(rehearsal).play()


@pytest.mark.parametrize("settings", [{}, {"revive": None}, {"attend": "selected"}], ids=str)
@pytest.mark.parametrize("prompt", [29, 30, 60])
def test_a_context_of_min_tokens_is_the_first_to_be_pruned(prompt, settings):
    """A context can also come from above: in a trimmed conversation, decode steps pass from 28 tokens to 32."""
    config = LazyConfig(CUTS, **SMALL | {"min_tokens": 30} | settings)
    script = (("prompt", prompt), ("decode", 1), ("trim", max(prompt - 27, 0)), ("decode", 5))
    rehearsal = clear_rehearsal(config, script)
    assert (rehearsal.steps[0].active[1] == frozenset(range(prompt))) == (prompt < 30)
    Performance(rehearsal).play()


@pytest.mark.parametrize("revive", [2, None])
def test_protected_tokens_that_wait_are_revived(revive):
    """A trim into the prompt makes others the recent ones, some of which were left behind."""
    config = LazyConfig(CUTS, **SMALL | {"revive": revive, "recent": 8})
    rehearsal = clear_rehearsal(config, (("prompt", 60), ("trim", 20), ("decode", 4)))
    waiting = [p for p in range(32, 40) if p not in rehearsal.moments[1].computed[1]]
    assert len(waiting) > 2
    assert any(p in step.revived[0] for step in rehearsal.answers for p in waiting)
    Performance(rehearsal).play()


@pytest.mark.parametrize("trim", range(2, 30, 3))
def test_a_prompt_goes_on_from_whatever_a_trim_left(trim):
    """Also where the last stage is empty then, and tokens wait at every cut."""
    config = LazyConfig(((2, 0.9), (4, 0.04)), **SMALL | {"window": 1, "recent": 0, "sink": 0, "revive": None})
    Performance(clear_rehearsal(config, (("prompt", 30), ("trim", trim), ("prompt", 9), ("decode", 2)))).play()


@pytest.mark.parametrize("trim", [4, 6, 10])
def test_positions_of_a_trimmed_answer_are_protected_no_more(trim):
    """When a question takes their place; what is left of the answer still is."""
    config = LazyConfig(CUTS, **SMALL | {"window": 1, "recent": 0})
    Performance(clear_rehearsal(config, (("prompt", 30), ("decode", 6), ("trim", trim), ("prompt", 20)))).play()
