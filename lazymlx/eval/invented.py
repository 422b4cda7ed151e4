"""What cannot be known or guessed: invented names and codes, for the tasks of the evaluation and the prompts of a
calibration. Equal seeds give equal ones."""

import random

SYLLABLES = [
    onset + rest
    for onset in "b d f g k l m n p r s t v z br dr kr st th sh".split()
    for rest in ("a", "e", "i", "o", "u", "an", "el", "or", "in", "us")
]
WORDS = (
    "harbor meadow falcon copper winter signal garden bridge river lantern cedar atlas comet ember orchid pilot quartz "
    "raven saddle timber umbrella violet walnut zephyr anchor beacon canyon delta engine forest"
).split()


class Inventor:
    """Makes names and codes."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def name(self) -> str:
        """A name that no text has used."""
        return "".join(self.rng.choices(SYLLABLES, k=self.rng.randint(2, 3))).capitalize()

    def names(self, count: int) -> list[str]:
        """Names, all different."""
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
