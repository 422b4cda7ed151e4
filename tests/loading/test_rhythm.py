"""The rhythm of revival follows the chip and the weights, and gives way to whoever says otherwise."""

from dataclasses import replace

import mlx.nn as nn
import pytest
from talking import talker
from tiny import stock_model, tiny_args, twin_of

from lazymlx.config import LazyConfig
from lazymlx.costs.metal import M1, M3, M5, decode_cost
from lazymlx.engine.model import Model
from lazymlx.loading.rhythm import in_rhythm, on_metal

CUT = LazyConfig("3:0.5")


@pytest.fixture(scope="module")
def packed() -> Model:
    model = twin_of(stock_model(tiny_args(hidden_size=64, intermediate_size=64)))
    nn.quantize(model, group_size=32, bits=4)
    return model


@pytest.mark.parametrize("chip", ["Apple M1", "Apple M2 Ultra", "Apple M3 Max", "Apple M4", "Apple M5 Pro"])
def test_packed_weights_on_metal_take_four_rows(packed: Model, chip: str) -> None:
    assert in_rhythm(CUT, packed, chip) == replace(CUT, revive=3, revive_every=1)


def test_everything_else_keeps_the_default(packed: Model) -> None:
    assert in_rhythm(CUT, packed, None) == in_rhythm(CUT, packed, "NVIDIA H200") == CUT
    assert in_rhythm(CUT, talker(), "Apple M3") == CUT
    dense = LazyConfig.dense()
    assert in_rhythm(dense, packed, "Apple M3") == dense
    assert on_metal() is None  # tests run on a CPU


@pytest.mark.parametrize("given", [{"revive": 15}, {"revive": 0}, {"revive": None}, {"revive_every": 4}], ids=str)
def test_what_is_given_stays(packed: Model, given: dict[str, int | None]) -> None:
    lazy = replace(CUT, **given)
    assert in_rhythm(lazy, packed, "Apple M3") == lazy


@pytest.mark.parametrize("fixed", ["revive", "revive_every"])
def test_a_default_that_is_asked_for_stays(packed: Model, fixed: str) -> None:
    assert in_rhythm(CUT, packed, "Apple M3", {fixed}) == CUT


def test_it_is_cheaper_on_every_chip_with_nearly_as_many() -> None:
    for chip in (M1, M3, M5):
        assert decode_cost(chip, 3, 1, 0.75) < decode_cost(chip, 7, 2, 0.75)
