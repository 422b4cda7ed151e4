"""How sure a mean over prompts is: bootstrap intervals, the same for the same values."""

from collections.abc import Sequence

import numpy as np

DRAWS = 2000
LEVELS = (2.5, 97.5)  # per cent: an interval of 95
Interval = tuple[float, float]


def interval(groups: Sequence[Sequence[float]]) -> Interval | None:
    """Of the mean of the groups' means. Prompts are drawn anew within each group; none with less than two of them.

    Values that are differences from the dense model on the same prompt make a paired interval.
    """
    if min(map(len, groups)) < 2:
        return None
    rng = np.random.default_rng(0)
    means = np.mean([_means(np.array(values, dtype=float), rng) for values in groups], axis=0)
    low, high = np.percentile(means, LEVELS)
    return float(low), float(high)


def with_ends(mean: float, ends: Interval | None, form: str) -> str:
    """A mean and, where there is one, its interval, as they stand in tables."""
    return f"{mean:{form}}" + (f" [{', '.join(f'{end:{form}}' for end in ends)}]" if ends else "")


def _means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1)
