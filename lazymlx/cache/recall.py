"""`Recall`: how an answer sees the tokens that were left behind, by predicted keys and values in few bits.

It is made anew for each answer and never written to: a step has another one, with what it attended to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import mlx.core as mx
from jaxtyping import Float, Integer

from .stage import KeysAndValues, KeysValues


@dataclass(frozen=True)
class FilledStage:
    """The tokens that are filled in the layers of a stage: those that waited at a cut before it when the answer began.

    Attributes:
        positions: of them; none where nobody waited.
        layers: their keys, rotated, and values.
    """

    positions: Integer[mx.array, " F"]
    layers: tuple[KeysValues, ...]

    @property
    def arrays(self) -> list[mx.array]:
        return [self.positions] + [a for layer in self.layers for a in layer.arrays]

    def of(self, index: int) -> list[KeysAndValues]:
        """Keys and values in the layer of this index in the stage: one part, or none where nobody waited."""
        return [layer.read(0, self.positions.shape[0]) for layer in self.layers[index : index + 1]]

    def like(self) -> "FilledStage":
        """The form alone."""
        return FilledStage(mx.zeros((0,), mx.int32), tuple(layer.like() for layer in self.layers))

    def filled_with(self, arrays: Iterator[mx.array]) -> "FilledStage":
        """The same with the next of these arrays, in the order of `arrays`."""
        positions, layers = next(arrays), tuple(layer.like() for layer in self.layers)
        for layer in layers:
            layer.fill(arrays)
        return FilledStage(positions, layers)


@dataclass(frozen=True)
class Recall:
    """What an answer knows of the tokens that were left behind.

    Attributes:
        stages: those behind the first cut.
        paid: by position, what the newest tokens of the answer attended to.
    """

    stages: tuple[FilledStage, ...]
    paid: Float[mx.array, " P"]

    def for_places(self, places: int) -> "Recall":
        """With as many positions as the conversation's tables have now."""
        missing = places - self.paid.shape[0]
        return replace(self, paid=mx.pad(self.paid, (0, missing))) if missing > 0 else self

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tokens are filled in each stage."""
        return tuple(stage.positions.shape[0] for stage in self.stages)

    @property
    def arrays(self) -> list[mx.array]:
        return [a for stage in self.stages for a in stage.arrays] + [self.paid]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays)

    def like(self) -> "Recall":
        """The form alone, that holds on to nothing."""
        return Recall(tuple(stage.like() for stage in self.stages), mx.zeros((0,)))

    def filled_with(self, arrays: list[mx.array]) -> "Recall":
        """The same with other arrays, in the order of `arrays`."""
        each = iter(arrays)
        stages = tuple(stage.filled_with(each) for stage in self.stages)
        return Recall(stages, next(each))
