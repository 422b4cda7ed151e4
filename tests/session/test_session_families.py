"""Sessions with other architectures than Llama: windows, experts, caps. What goes back or comes back is the same."""

import numpy as np
import pytest
from talking import DOCUMENT, answer, speller
from test_session import OTHER, QUESTION, assert_same, state_of
from zoo import CONFIGS, SEEING, pair

from lazymlx.config import LazyConfig
from lazymlx.costs.memory import estimate_memory
from lazymlx.session.session import Session

EVERYWHERE = LazyConfig("bold", window=3, pool=3, sink=1, recent=2, revive=2, revive_every=1, min_tokens=0, round_to=4)
SOME = ["llama, windows", "qwen3_moe", "gemma2", "cohere2", "phi3", "gpt_oss", "qwen3_vl"]


@pytest.mark.parametrize("name", SOME)
def test_going_back_and_coming_back(name, tmp_path):
    model = pair(name)[1]
    s = Session(model, speller(), lazy=EVERYWHERE)
    s.read(DOCUMENT)
    answer(s, QUESTION)
    text, logprobs = answer(s, OTHER)
    s.undo()
    before = state_of(s)  # cut back to what the question has in common: these models say tokens that have no letter
    answer(s, OTHER)
    s.undo()
    assert_same(state_of(s), before)
    s.save(tmp_path / "book")
    for asked in (s, Session.open(tmp_path / "book", model, speller())):
        other, expected = answer(asked, OTHER)
        assert text == other
        np.testing.assert_array_equal(logprobs, expected)


@pytest.mark.parametrize("name", [*CONFIGS, *SEEING])
def test_every_family_has_an_estimate(name):
    estimate = estimate_memory(pair(name)[1], 1000, EVERYWHERE)
    assert estimate.total > estimate.weights > 0
