"""Two threads that decode with one model, step by step in turn: each says what it says alone."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import mlx.core as mx
import numpy as np
import pytest
from looking import random_maps
from tiny import feed, random_tokens, stock_model, tiny_args, twin_of

from lazymlx.config import LazyConfig
from lazymlx.nn import compiling
from lazymlx.nn.compiling import Replay

pytestmark = pytest.mark.unchecked

STEPS = 40
PROMPT = random_tokens(200)
SCHEDULES = (((2, 0.5), (4, 0.2)), ((2, 0.3),))


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads change places as often as they can, and steps are traced, whatever the device is."""
    monkeypatch.setattr(compiling, "compiles", lambda: True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*works: Callable[[], list]) -> list[list]:
    """What they return if they begin together, each in a thread of its own."""
    ready = Barrier(len(works))

    def begin(work: Callable[[], list]) -> list:
        ready.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(begin, works))


def test_thousands_of_calls_in_turn_are_each_of_their_own_trace(in_turn: None) -> None:
    many = {str(n): mx.array(1.0) for n in range(3000)}  # to compare them takes long enough for the other one to come
    replay, parts, x = Replay(), [many], mx.arange(5.0)
    mx.eval(x)  # what is lazy belongs to its thread

    def of(key: str, function: Callable[[mx.array], mx.array]) -> Callable[[], list]:
        return lambda: [replay(function, key, parts, x).item() for _ in range(2000)]

    least, most = at_once(of("least", mx.min), of("most", mx.max))
    assert set(least) == {0.0} and set(most) == {4.0}


@pytest.mark.parametrize("looking", [False, True])
def test_decode_steps_in_turn_are_those_of_each_alone(looking: bool, in_turn: None) -> None:
    model = twin_of(stock_model(tiny_args()))
    model.look_with(random_maps(0) if looking else None)

    def answer(schedule: tuple[tuple[int, float], ...]) -> list:
        cache = model.make_cache(LazyConfig(schedule, min_tokens=0))
        cache[0].expect(len(PROMPT))
        token = feed(model, cache, PROMPT)[:, -1].argmax(axis=-1)
        said = []
        for _ in range(STEPS):
            logits = model(token[None], cache=cache)
            assert logits is not None
            token = logits[:, -1].argmax(axis=-1)
            said.append(np.array(logits[0, -1]))
        return said

    alone = [answer(schedule) for schedule in SCHEDULES]
    together = at_once(*(lambda s=schedule: answer(s) for schedule in SCHEDULES))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
