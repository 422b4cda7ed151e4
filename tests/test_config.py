"""What a schedule and a configuration accept, what they refuse, and with which words."""

import dataclasses
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymlx.config import LazyConfig
from lazymlx.errors import ConfigError, LazyMLXError
from lazymlx.schedule import DEFAULT_PRESET, PRESETS, Cut, Schedule

# --- schedules ---------------------------------------------------------------------------------------

CUTS = (Cut(8, 0.5), Cut(10, 0.2))


@pytest.mark.parametrize(
    "given_schedule",
    [
        "8:0.5,10:0.2",
        " 8:0.5 , 10:.2 ",
        ((8, 0.5), (10, 0.2)),
        [[8, 0.5], [10, 0.2]],
        pytest.param(iter(((8.0, 0.5), (np.int64(10), np.float64(0.2)))), id="iterator"),
        Schedule(CUTS),
    ],
    ids=str,
)
def test_a_schedule_is_read_from_text_and_from_pairs(given_schedule):
    schedule = Schedule.of(given_schedule)
    assert schedule.cuts == CUTS
    assert str(schedule) == "8:0.5,10:0.2"
    assert Schedule.of(str(schedule)) == schedule


@pytest.mark.parametrize("nothing", ["", "  ", (), [], Schedule()], ids=repr)
def test_an_empty_schedule_is_dense(nothing):
    schedule = Schedule.of(nothing)
    assert not schedule
    assert str(schedule) == "dense"
    assert Schedule.of("dense", 12) == schedule


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("8", "expected 'layer:keep,...'"),
        ("8:0.5,", "expected 'layer:keep,...'"),
        ("8:0.5:1", "expected 'layer:keep,...'"),
        ("8:half", "expected 'layer:keep,...'"),
        ("8.5:0.5", "expected 'layer:keep,...'"),
        ("steeper", "one of dense, conservative, bold, paper, early, steep; got 'steeper'"),
        ("0:0.5", "behind at least one layer, got layer 0"),
        ("-1:0.5", "behind at least one layer, got layer -1"),
        ("8:0.5,8:0.2", "layers must rise from cut to cut, got layer 8 after 8"),
        ("10:0.5,8:0.2", "got layer 8 after 10"),
        ("8:0", "keep at layer 8 must be above 0 and at most 1, got 0.0"),
        ("8:-0.5", "above 0 and at most 1, got -0.5"),
        ("8:1.1", "above 0 and at most 1, got 1.1"),
        ("8:nan", "above 0 and at most 1, got nan"),
        ("8:inf", "above 0 and at most 1, got inf"),
        ("8:0.2,10:0.5", "keeps must not rise .* got 0.5 after 0.2"),
        (((8,),), r"a cut is a pair \(layer, keep\) of a whole number and a share, got \(8,\)"),
        ((8, 0.5), r"a cut is a pair .* got 8"),
        (((8.5, 0.5),), "a cut is a pair"),
        (((True, 0.5),), "a cut is a pair"),
        (((8, None),), "a cut is a pair"),
        (((float("inf"), 0.5),), "a cut is a pair"),
        (8, "expected cuts, text or a preset's name, got 8"),
        (None, "expected cuts, text or a preset's name, got None"),
    ],
)
def test_a_wrong_schedule_is_refused(wrong, message):
    for read in (Schedule.of, LazyConfig):
        with pytest.raises(ConfigError, match=message):
            read(wrong)


def test_a_schedule_fits_the_model():
    assert Schedule.of("11:0.5", 12).cuts == (Cut(11, 0.5),)
    for read in (Schedule.of, lambda cuts, layers: LazyConfig(cuts).resolve(layers)):
        with pytest.raises(ConfigError, match="layer 12 is outside of the model, which has layers 0 to 11"):
            read("8:0.5,12:0.5", 12)


# --- presets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 12, 16, 22, 28, 32, 80])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_every_depth(name, layers):
    cuts = Schedule.of(name, layers).cuts
    assert len(cuts) <= len(PRESETS[name])
    if layers >= 16:
        assert [cut.keep for cut in cuts] == [keep for _, keep in PRESETS[name]]
        assert all(
            abs(cut.layer / layers - share) <= 0.5 / layers for cut, (share, _) in zip(cuts, PRESETS[name], strict=True)
        )


def test_the_papers_preset_drops_at_30_60_and_90_percent_of_the_depth():
    assert str(Schedule.of("paper", 32)) == "10:0.7,19:0.49,29:0.343"


def test_a_preset_needs_a_model():
    with pytest.raises(ConfigError, match="preset 'early' needs a model"):
        Schedule.of("early")
    with pytest.raises(ConfigError, match="'early' must be resolved for a model first"):
        _ = LazyConfig("early").cuts


def test_resolving_turns_names_into_cuts():
    assert LazyConfig("early").resolve(32).cuts == Schedule.of("early", 32).cuts
    assert LazyConfig(" early ") == LazyConfig("early")
    assert LazyConfig().schedule == "auto"
    assert LazyConfig().resolve(12).cuts == Schedule.of(DEFAULT_PRESET, 12).cuts
    assert LazyConfig("8:0.5", window=3).resolve(12) == LazyConfig(((8, 0.5),), window=3)


def test_the_default_is_one_late_cut():
    ((share, keep),) = PRESETS[DEFAULT_PRESET]
    assert share >= 0.7 and keep >= 0.2
    assert str(Schedule.of(DEFAULT_PRESET, 28)) == "21:0.25"
    assert str(Schedule.of("bold", 28)) == "14:0.5,21:0.25"


# --- how many are kept -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keep, context, count",
    [
        (0.2, 10, 2),
        (0.07, 100, 7),
        (0.55, 100, 55),
        (0.14, 50, 7),
        (0.29, 100, 29),
        (0.2, 11, 3),
        (1.0, 7, 7),
        (0.01, 1, 1),
    ],
)
def test_kept_tokens_are_the_decimal_products_ceiling(keep, context, count):
    """Also where floats say otherwise: 0.07 * 100 is 7.000000000000001."""
    assert Cut(1, keep).count(context) == count


@given(st.integers(1, 1000), st.integers(1, 200_000))
def test_kept_tokens_are_exact_for_thousandths(thousandths, context):
    assert Cut(1, thousandths / 1000).count(context) == ceil(Fraction(thousandths * context, 1000))


# --- configurations ----------------------------------------------------------------------------------


UNPACKED = {"kv_bits": None, "kv_group_size": 64, "quantized_kv_start": 5000, "aux_bits": None}


def test_the_defaults_are_the_designs():
    assert dataclasses.asdict(LazyConfig("8:0.5")) == {
        "schedule": {"cuts": (Cut(8, 0.5),)},
        "window": 16,
        "pool": 13,
        "reduce": "mean",
        "links": 32,
        "lookahead": 64,
        "filled": "kept",
        "sink": 4,
        "recent": 32,
        "attend": "computed",
        "revive": 7,
        "revive_every": 2,
        "min_tokens": 1024,
        "scorer": None,
        "round_to": 64,
        **UNPACKED,
    }


def test_the_papers_mode():
    assert LazyConfig.paper().resolve(32).cuts == Schedule.of("paper", 32).cuts
    assert dataclasses.asdict(LazyConfig.paper("8:0.5")) == {
        "schedule": {"cuts": (Cut(8, 0.5),)},
        "window": 1,
        "pool": 1,
        "reduce": "mean",
        "links": 0,
        "lookahead": 0,
        "filled": "kept",
        "sink": 0,
        "recent": 0,
        "attend": "selected",
        "revive": None,
        "revive_every": 1,
        "min_tokens": 0,
        "scorer": None,
        "round_to": 1,
        **UNPACKED,
    }


def test_the_dense_mode_has_no_cuts():
    assert LazyConfig.dense().cuts == ()


@pytest.mark.parametrize("field", ["window", "pool", "round_to"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_whole_numbers_from_one(field, value):
    with pytest.raises(ConfigError, match=f"{field}: must be a whole number of at least 1, got {value!r}"):
        LazyConfig(**{field: value})


@pytest.mark.parametrize("field", ["sink", "recent", "min_tokens"])
@pytest.mark.parametrize("value", [-1, 0.5, "0", False, None])
def test_whole_numbers_from_zero(field, value):
    assert getattr(LazyConfig(**{field: 0}), field) == 0
    with pytest.raises(ConfigError, match=f"{field}: must be a whole number of at least 0, got {value!r}"):
        LazyConfig(**{field: value})


@pytest.mark.parametrize("field", ["window", "pool", "links", "lookahead", "sink", "recent", "revive", "round_to"])
@pytest.mark.parametrize("value", [2**30 + 1, 2**31 + 1, 2**63 + 1, 10**5000], ids=["2^30", "2^31", "2^63", "10^5000"])
def test_numbers_that_no_shape_could_have_are_refused(field, value):
    most = 2**16 if field in ("pool", "revive") else 2**30
    with pytest.raises(ConfigError, match=f"{field}: must be at most {most}, got a larger number"):
        LazyConfig(**{field: value})


@pytest.mark.parametrize("field", ["pool", "revive"])
def test_what_takes_memory_at_every_step_is_bounded_closer(field):
    LazyConfig(**{field: 2**16 - 1})
    with pytest.raises(ConfigError, match=f"{field}: must be at most {2**16}, got a larger number"):
        LazyConfig(**{field: 2**16 + 1})


@pytest.mark.parametrize("value", [-1, 1.5, "all", True])
def test_a_budget_is_a_number_or_none_for_all(value):
    assert LazyConfig(revive=0).revive == 0
    assert LazyConfig(revive=None).revive is None
    with pytest.raises(ConfigError, match=f"revive: must be a whole number of at least 0 or None .*, got {value!r}"):
        LazyConfig(revive=value)


@pytest.mark.parametrize("pool", [2, 4])
def test_a_pool_is_odd(pool):
    with pytest.raises(ConfigError, match=f"pool: must be odd.* got {pool}"):
        LazyConfig(pool=pool)


@pytest.mark.parametrize("field, choices", [("reduce", "mean, max"), ("attend", "computed, selected")])
def test_a_choice_is_one_of_few(field, choices):
    for choice in choices.split(", "):
        assert getattr(LazyConfig(**{field: choice}), field) == choice
    with pytest.raises(ConfigError, match=f"{field}: must be one of {choices}, got 'median'"):
        LazyConfig(**{field: "median"})


def test_a_configuration_is_frozen_and_hashable():
    lazy = LazyConfig(((8, 0.5),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        lazy.window = 3
    assert hash(lazy) == hash(LazyConfig("8:0.5"))


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"] for field in dataclasses.fields(LazyConfig))


@pytest.mark.parametrize(
    "context, options, count",
    [
        (1000, {}, 256),  # 200, and 52 that are protected, rounded up
        (1000, {"protected": 60}, 320),
        (1000, {"protected": 20, "rounded": False}, 220),
        (100, {"protected": 90}, 100),  # never more than there are
        (99, {}, 99),  # too short to be cut
    ],
)
def test_a_cut_lets_its_share_through_and_what_is_protected(context, options, count):
    lazy = LazyConfig("8:0.2", sink=4, recent=32, window=16, min_tokens=100, round_to=64)
    assert lazy.let_through(lazy.cuts[0], context, **options) == count


def test_a_configurations_error_is_the_callers():
    assert issubclass(ConfigError, ValueError) and issubclass(ConfigError, LazyMLXError)
    assert ConfigError.exit_code == 2


@pytest.mark.parametrize(
    "values, said",
    [
        ({"kv_bits": 8.0}, "kv_bits: must be one of"),
        ({"aux_bits": True}, "aux_bits: must be one of"),
        ({"kv_group_size": 64.0}, "kv_group_size: must be one of"),
        ({"scorer": "mine"}, "scorer: must be a Scorer"),
    ],
)
def test_values_of_another_type_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        LazyConfig(**values)
