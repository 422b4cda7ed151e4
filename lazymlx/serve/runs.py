"""Runs of tokens that a prompt has in common with what was read before, wherever they stand in either.

A document that a client sends again stands behind another history, or among other documents; its beginning and its end
may be tokenised differently there, what is between is the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from .disk import common

BLOCK = 64  # neighbouring tokens by which a run is recognised
LEAST = 512  # tokens of a run: what is shorter depends too much on what stands before it


class CommonRun(NamedTuple):
    """Tokens from `at` on that are those of another text from `start` on."""

    at: int
    text: int
    start: int
    length: int


def common_runs(tokens: Int32[np.ndarray, " N"], texts: Sequence[Int32[np.ndarray, " M"]]) -> list[CommonRun]:
    """The runs of at least `LEAST` tokens that `tokens` has in common with some of the texts, in their order. Of equal
    ones in several texts, that of the first one."""
    known: dict[bytes, tuple[int, int]] = {}
    for number, text in enumerate(texts):
        for start in range(0, len(text) - BLOCK + 1, BLOCK):
            known.setdefault(text[start : start + BLOCK].tobytes(), (number, start))
    runs, free, here = list[CommonRun](), 0, 0
    while known and here + BLOCK <= len(tokens):
        found = known.get(tokens[here : here + BLOCK].tobytes())
        here += 1
        if found is None:
            continue
        (number, start), at = found, here - 1
        back = common(tokens[free:at][::-1], texts[number][:start][::-1])
        length = back + common(tokens[at:], texts[number][start:])
        if length >= LEAST:
            runs.append(CommonRun(at - back, number, start - back, length))
            free = here = at - back + length
    return runs
