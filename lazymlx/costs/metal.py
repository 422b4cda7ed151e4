"""Packed weights on Metal: which kernel multiplies a step's rows with them, and what a step then costs.

Decoding is bound by reading weights, so a few rows more are nearly free, up to where MLX goes to another kernel. Where
that is differs by chip; the limits below are those of MLX 0.32's sources, the costs were measured by others (M3 to M5,
up to 8 rows) or follow from them, give or take 40%. With lazymlx nobody has measured them: `lazymlx bench --mac` does.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kernel = Literal["vector", "wide vector", "tile"]

WIDE_ROWS = 5  # rows that the wide vector kernel takes in one pass over the weights
TILE_ROWS = 32
LAYERS_SHARE = 0.94  # of an 8B model's weights: the rest is its head, which sees a single row


@dataclass(frozen=True)
class Chip:
    """A generation of Apple's chips.

    Attributes:
        limits: most rows for vector kernels: where both sides of the weights are at most 2048, at most 4096, or longer.
        wide: it has the wide vector kernel.
        costs: of a step of so many rows over one of a single row, by rows; in the layers of an 8B model.
    """

    limits: tuple[int, int, int]
    wide: bool
    costs: tuple[tuple[int, float], ...]


M1 = Chip((14, 10, 6), False, ((1, 1.0), (2, 1.35), (4, 1.9), (5, 2.3), (8, 3.7), (32, 3.7), (64, 7.4)))
M3 = Chip((13, 15, 13), True, ((1, 1.0), (2, 1.1), (4, 1.45), (5, 1.75), (8, 2.5), (32, 4.2), (64, 8.0)))
M5 = Chip((33, 25, 13), True, ((1, 1.0), (2, 1.05), (4, 1.28), (5, 1.45), (8, 2.2), (32, 3.5), (64, 4.2)))
ULTRA_LIMITS = (32, 18, 12)
GENERATIONS = {1: M1, 2: M1, 3: M3, 4: M3, 5: M5}


def chip_of(name: str) -> Chip | None:
    """What is known of a chip, such as "Apple M3 Max"; None if nothing is."""
    found = re.match(r"Apple M(\d+)\b(.*)", name)
    if found is None:
        return None
    chip = GENERATIONS.get(min(int(found[1]), max(GENERATIONS)), M1)
    return Chip(ULTRA_LIMITS, chip.wide, chip.costs) if "Ultra" in found[2] else chip


def kernel(chip: Chip, rows: int, inputs: int, outputs: int) -> tuple[Kernel, int]:
    """The kernel that multiplies rows with packed weights, and how often it goes over these."""
    limit = chip.limits[bisect_left((2048, 4096), max(inputs, outputs))]
    if rows > limit:
        return "tile", -(-rows // TILE_ROWS)
    return ("wide vector", -(-rows // WIDE_ROWS)) if chip.wide else ("vector", rows)


def step_cost(chip: Chip, rows: int) -> float:
    """Of layers that see so many rows, over those that see one."""
    if rows <= 1:
        return 1.0
    for (fewer, less), (more, much) in pairwise(chip.costs):
        if rows <= more:
            return less + (much - less) * (rows - fewer) / (more - fewer)
    most, cost = chip.costs[-1]
    return cost * rows / most


def decode_cost(chip: Chip, revive: int, every: int, first_cut: float) -> float:
    """Of a token of an answer, on average, over one where nothing comes back.

    Args:
        revive: tokens that come back at a time.
        every: tokens of the answer from one such time to the next.
        first_cut: share of the layers before the first cut, whose steps have a single row.
    """
    behind = (1 - first_cut) * LAYERS_SHARE
    return 1 + behind * (step_cost(chip, 1 + revive) - 1) / every
