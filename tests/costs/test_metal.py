"""MLX's rules of dispatch on Metal, written down: a change of our rows shows up here as a change of kernels."""

import pytest

from lazymlx.config import LazyConfig
from lazymlx.costs.metal import M1, M3, M5, Chip, chip_of, decode_cost, kernel, step_cost
from lazymlx.nn.attend import FEW_ROWS
from lazymlx.schedule import PRESETS

NAMES = {"M1 and M2": M1, "M3 and M4": M3, "M5": M5}
ULTRA = chip_of("Apple M2 Ultra")
LLAMA_3_8B = (4096, 14336)  # its widest weights, and the others
SQUARE = (4096, 4096)
DEFAULT_ROWS = 1 + (LazyConfig().revive or 0)


@pytest.mark.parametrize(
    ("chip", "rows", "sides", "expected"),
    [
        (M1, 1, LLAMA_3_8B, ("vector", 1)),
        (M1, 4, LLAMA_3_8B, ("vector", 4)),
        (M1, 6, LLAMA_3_8B, ("vector", 6)),
        (M1, 7, LLAMA_3_8B, ("tile", 1)),
        (M1, DEFAULT_ROWS, LLAMA_3_8B, ("tile", 1)),
        (M1, DEFAULT_ROWS, SQUARE, ("vector", 8)),
        (M1, 14, (2048, 2048), ("vector", 14)),
        (M3, 4, LLAMA_3_8B, ("wide vector", 1)),
        (M3, 5, LLAMA_3_8B, ("wide vector", 1)),
        (M3, DEFAULT_ROWS, LLAMA_3_8B, ("wide vector", 2)),
        (M3, DEFAULT_ROWS, SQUARE, ("wide vector", 2)),
        (M3, 14, LLAMA_3_8B, ("tile", 1)),
        (M3, 15, SQUARE, ("wide vector", 3)),
        (M5, DEFAULT_ROWS, LLAMA_3_8B, ("wide vector", 2)),
        (M5, 25, SQUARE, ("wide vector", 5)),
        (M5, 33, (2048, 1024), ("wide vector", 7)),
        (M5, 32, LLAMA_3_8B, ("tile", 1)),
        (M5, 33, LLAMA_3_8B, ("tile", 2)),
        (ULTRA, 12, LLAMA_3_8B, ("vector", 12)),
        (ULTRA, 13, LLAMA_3_8B, ("tile", 1)),
    ],
)
def test_the_kernel_of_a_step(chip: Chip, rows: int, sides: tuple[int, int], expected: tuple[str, int]) -> None:
    assert kernel(chip, rows, *sides) == kernel(chip, rows, *reversed(sides)) == expected


def test_the_default_s_rows_are_few_rows_everywhere_else() -> None:
    assert DEFAULT_ROWS <= FEW_ROWS


@pytest.mark.parametrize("chip", NAMES.values(), ids=NAMES)
def test_costs_rise_with_the_rows_and_meet_those_written_down(chip: Chip) -> None:
    costs = [step_cost(chip, rows) for rows in range(1, 130)]
    assert costs == sorted(costs) and costs[0] == 1
    assert all(step_cost(chip, rows) == pytest.approx(cost) for rows, cost in chip.costs)
    assert step_cost(chip, 128) == pytest.approx(2 * step_cost(chip, 64))


@pytest.mark.parametrize(
    ("revive", "every", "expected"),
    [(7, 2, (1.95, 1.53, 1.42)), (3, 2, (1.32, 1.16, 1.10)), (3, 1, (1.63, 1.32, 1.20)), (31, 9, (1.21, 1.25, 1.20))],
)
def test_decoding_with_a_first_cut_at_a_quarter(revive: int, every: int, expected: tuple[float, ...]) -> None:
    """The figures that the first reading of MLX's sources came to."""
    found = [decode_cost(chip, revive, every, PRESETS["early"][0][0]) for chip in NAMES.values()]
    assert found == pytest.approx(expected, abs=0.01)


def test_four_rows_cost_half_of_what_eight_do_or_less() -> None:
    for chip in NAMES.values():
        assert step_cost(chip, 4) - 1 <= (step_cost(chip, 8) - 1) / 2


@pytest.mark.parametrize(
    ("name", "chip"), [("Apple M2 Pro", M1), ("Apple M4", M3), ("Apple M5 Max", M5), ("Apple M9", M5), ("H200", None)]
)
def test_chips_by_name(name: str, chip: Chip | None) -> None:
    assert chip_of(name) is chip
