"""What warming up runs through is all that an answer needs, and it leaves no trace."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from talking import LAZY, talker

from lazymlx.config import LazyConfig
from lazymlx.engine import advance
from lazymlx.loading import warm
from lazymlx.loading.warm import warm_once, warm_up

WAYS = ("exactly", "budgeted", "alone")


@pytest.mark.parametrize("lazy", [LazyConfig("3:0.25"), LAZY], ids=["one cut", "two"])
def test_a_prompt_a_reviving_step_and_one_that_rests(lazy: LazyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = list[str]()
    for name in WAYS:
        monkeypatch.setattr(advance, name, noting(name, gone))
    model = talker(lazy)
    before = np.array(model(mx.array([[1, 2, 3]])))
    warm_up(model)
    assert gone[0] == "exactly" and "budgeted" in gone
    assert model.warm and model.lazy == lazy
    np.testing.assert_array_equal(before, np.array(model(mx.array([[1, 2, 3]]))))


def noting(name: str, gone: list[str]) -> Any:
    way = getattr(advance, name)

    def noted(*given: Any) -> Any:
        gone.append(name)
        return way(*given)

    return noted


def test_the_dense_model_is_warmed_too() -> None:
    model = talker(LazyConfig.dense())
    warm_up(model)
    assert model.warm


def test_once_a_model_and_only_where_something_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    times = list[object]()
    monkeypatch.setattr(warm, "warm_up", lambda model: (times.append(model), setattr(model, "warm", True)))
    model = talker()
    warm_once(model)
    assert not times
    monkeypatch.setattr(warm, "compiles", lambda: True)
    warm_once(model)
    warm_once(model)
    assert times == [model]
