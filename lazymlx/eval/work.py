"""What a generated task works with: randomness, room in tokens, and invented names and codes."""

import random
from dataclasses import dataclass

from .encoding import Encoder

SYLLABLES = [
    onset + rest
    for onset in "b d f g k l m n p r s t v z br dr kr st th sh".split()
    for rest in ("a", "e", "i", "o", "u", "an", "el", "or", "in", "us")
]
WORDS = (
    "harbor meadow falcon copper winter signal garden bridge river lantern cedar atlas comet ember orchid pilot quartz "
    "raven saddle timber umbrella violet walnut zephyr anchor beacon canyon delta engine forest"
).split()
QUESTION = "\n\nQuestion: "


@dataclass(frozen=True)
class Item:
    """A task's result: a context, questions about it in turn, and right answers to the last one."""

    context: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    metric: str
    max_tokens: int


class Work:
    """One sample in the making: `room` tokens for its context and first question."""

    def __init__(self, rng: random.Random, encoder: Encoder, room: int):
        self.rng, self.encoder, self.room = rng, encoder, room

    def room_beside(self, question: str) -> int:
        """Tokens left for the context."""
        return self.room - self.encoder.count(f"{QUESTION}{question}")

    def name(self) -> str:
        """An invented name."""
        return "".join(self.rng.choices(SYLLABLES, k=self.rng.randint(2, 3))).capitalize()

    def names(self, count: int) -> list[str]:
        """Invented names, all different."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.name()] = None
        return list(found)

    def hexadecimal(self, digits: int) -> str:
        return "".join(self.rng.choices("0123456789abcdef", k=digits))

    def code(self) -> str:
        """A number, a full name, a word with a number, or hexadecimal digits."""
        kind = self.rng.randrange(4)
        if kind == 0:
            return "".join(self.rng.choices("0123456789", k=self.rng.randint(4, 7)))
        if kind == 1:
            return f"{self.name()} {self.name()}"
        if kind == 2:
            return f"{self.rng.choice(WORDS)}-{self.rng.randint(10, 998)}"
        return self.hexadecimal(self.rng.randint(6, 12))
