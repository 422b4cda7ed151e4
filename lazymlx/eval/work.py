"""What a generated task works with: what it invents, and room in tokens."""

import random
from dataclasses import dataclass

from .encoding import Encoder
from .invented import Inventor

QUESTION = "\n\nQuestion: "


@dataclass(frozen=True)
class Item:
    """A task's result: a context, questions about it in turn, and right answers to the last one."""

    context: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    metric: str
    max_tokens: int


class Work(Inventor):
    """One sample in the making: `room` tokens for its context and first question."""

    def __init__(self, rng: random.Random, encoder: Encoder, room: int):
        super().__init__(rng)
        self.encoder, self.room = encoder, room

    def room_beside(self, question: str) -> int:
        """Tokens left for the context."""
        return self.room - self.encoder.count(f"{QUESTION}{question}")
