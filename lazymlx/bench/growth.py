"""How costs grow with the prompt: the exponent b of cost = a x length^b, fitted to the logarithms by least squares.

1 is linear. Projections and the feed-forward network grow so, attention as 2; pruning makes both smaller, not flatter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from .results import SpeedRow, rows

COSTS: dict[str, tuple[str, Callable[[SpeedRow], float | None]]] = {  # its unit, and where it stands in a row
    "time to the first token": ("s", lambda row: row["ttft"]),
    "peak memory above the weights": ("bytes", lambda row: row["peak_bytes"]),
    "time of a generated token": ("s", lambda row: 1 / row["tps"] if row["tps"] else None),
}


@dataclass(frozen=True)
class Fit:
    """One cost of one variant."""

    cost: str
    variant: str
    lengths: tuple[int, ...]
    values: tuple[float, ...]
    exponent: float
    factor: float

    def at(self, length: int) -> float:
        return self.factor * length**self.exponent


def fit(lengths: list[int], values: list[float]) -> tuple[float, float]:
    """Exponent and factor of the power law closest to the points."""
    exponent, logarithm = np.polyfit(np.log(lengths), np.log(values), 1)
    return float(exponent), float(np.exp(logarithm))


def fits(content: dict[str, Any]) -> list[Fit]:
    """Every cost of every variant that was measured at two lengths or more."""
    found = rows(content)
    made = []
    for cost, (_, value) in COSTS.items():
        for variant in dict.fromkeys(row["variant"] for row in found):
            points = [(row["length"], value(row)) for row in found if row["variant"] == variant]
            points = [(n, float(v)) for n, v in points if v]
            if len(points) > 1:
                lengths, values = zip(*points, strict=True)
                made.append(Fit(cost, variant, lengths, values, *fit(list(lengths), list(values))))
    return made


def sentence(content: dict[str, Any]) -> str:
    """The exponents in words.

    Raises:
        UsageError: the run measured nothing at two lengths.
    """
    found = fits(content)
    if not found:
        raise UsageError("growth: needs a run with at least two lengths")
    lengths = [n for f in found for n in f.lengths]
    parts = []
    for cost in dict.fromkeys(f.cost for f in found):
        own = ", ".join(f"N^{f.exponent:.2f} ({f.variant})" for f in found if f.cost == cost)
        parts.append(f"{cost} grows as {own}")
    return f"From {min(lengths):,} to {max(lengths):,} tokens, " + "; ".join(parts) + "."
