"""The prose that tasks hide things in: titled passages, written for this purpose.

Ninety of them, about 14,000 tokens. None is in the embedded model's training data, and none has a fact of the tasks'
kind in it, so what is asked for stands in a context exactly where a task has put it. Longer contexts repeat passages.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

TEXTS = Path(__file__).parent / "texts"


class Passage(NamedTuple):
    """A paragraph and what it is called."""

    title: str
    text: str


@cache
def passages() -> tuple[Passage, ...]:
    """All passages, in the order of their files."""
    found = []
    for path in sorted(TEXTS.glob("*.txt")):
        for section in path.read_text(encoding="utf-8").split("## ")[1:]:
            title, text = section.strip().split("\n", 1)
            found.append(Passage(title, text.strip()))
    return tuple(found)


def shuffled(rng: random.Random) -> Iterator[Passage]:
    """Passages without end, in a new order each time they have all been used."""
    while True:
        yield from rng.sample(passages(), len(passages()))
