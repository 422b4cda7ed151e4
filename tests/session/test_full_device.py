"""A device that runs full in the middle of something: the error says what was needed, and nothing has happened."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from talking import DOCUMENT, answer, cache_of, session, speller, talker
from test_session import QUESTION, assert_same, read_session, state_of

from lazymlx.engine.model import Model
from lazymlx.errors import TooLargeError
from lazymlx.generation import stream_generate

SAID = [
    "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBuffer)",
    "[malloc] Unable to allocate 4096 bytes.",
    "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed buffer size of 8 bytes.",
    "cudaMallocAsync failed: out of memory.",
]


def failing(monkeypatch: pytest.MonkeyPatch, said: str, after: int) -> None:
    """From the `after`-th call on, advancing raises what a full device says."""
    advance, calls = Model.advance, [0]

    def fails(self: Model, *given: Any, **options: Any) -> Any:
        done = advance(self, *given, **options)
        calls[0] += 1
        if calls[0] > after:
            raise RuntimeError(said)
        return done

    monkeypatch.setattr(Model, "advance", fails)


@pytest.mark.parametrize("said", SAID)
def test_a_full_device_is_an_error_of_ours(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, said, 0)
    with pytest.raises(TooLargeError, match=r"^memory: the device is full: \d+ tokens need about .*B, .* weights"):
        read_session()


def test_what_is_no_full_device_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "[matmul] shapes", 0)
    with pytest.raises(RuntimeError, match="shapes"):
        read_session()


@pytest.mark.parametrize("after", [0, 1, 3], ids=str)
@pytest.mark.parametrize(
    "turn", [lambda s: s.read("more of it. " * 5), lambda s: answer(s, QUESTION)], ids=["read", "ask"]
)
def test_the_session_is_as_it_was(turn: Callable[[Any], object], after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    s, other = read_session(step_size=16), read_session(step_size=16)
    with monkeypatch.context() as patch:
        failing(patch, SAID[0], after)
        with pytest.raises(TooLargeError):
            turn(s)
    assert_same(state_of(s), state_of(other))
    assert (answer(s, QUESTION)[1] == answer(other, QUESTION)[1]).all()


def test_a_prompt_without_a_session_leaves_the_cache_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = talker(), speller()
    cache = model.make_cache()
    failing(monkeypatch, SAID[1], 1)
    with pytest.raises(TooLargeError):
        list(stream_generate(model, tokenizer, DOCUMENT, prompt_cache=cache, prefill_step_size=16))
    assert cache[0].empty() and cache[0].expected == 0
    mx.eval(cache[0].state)
    assert cache_of(session()).size() == cache[0].size()
