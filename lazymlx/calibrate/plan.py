"""What to calibrate for. Knows the limits that are the same for every model; loads nothing heavy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..config import Cut
from ..errors import UsageError
from .prompts import OVERHEAD

SHORTEST = 4 * OVERHEAD  # a shorter prompt has no text to speak of
LEAST_KEPT = 0.03


@dataclass(frozen=True)
class Plan:
    """A calibration, before it is run.

    Attributes:
        lengths: of the prompts, in tokens.
        max_loss: share of prompts whose answer may differ.
        target: an ideal speed-up to reach at the least loss; None: the highest one under `max_loss`.
        prompts: how many the search uses.
        checks: how many fresh ones the result is checked on.
        rounds: how many results may be checked until one passes.
        texts: paragraphs of the user's own texts; without any, the embedded document and generated material are used.
        seed: other seeds make other prompts.

    Raises:
        UsageError: a value is outside of its range.
    """

    lengths: tuple[int, ...] = (1024, 2048)
    max_loss: float = 0.01
    target: float | None = None
    prompts: int = 40
    checks: int = 100
    rounds: int = 8
    texts: Sequence[Sequence[str]] = field(default=(), repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < SHORTEST:
            given = ", ".join(map(str, self.lengths)) or "none"
            raise UsageError(f"lengths: expected one or more of at least {SHORTEST} tokens, got {given}")
        if not 0 <= self.max_loss < 1:
            raise UsageError(f"max-loss: expected a share of the answers, from 0 to less than 1, got {self.max_loss:g}")
        if self.target is not None and not self.target > 1:
            raise UsageError(f"target-speedup: expected more than 1, got {self.target:g}")
        for name in ("prompts", "checks", "rounds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: must be at least 1, got {getattr(self, name)}")

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def check_model(self, layers: int, positions: int | None, speedup: Callable[[Sequence[Cut]], float]) -> None:
        """Refuse what cannot be done with a model of so many layers and positions.

        Raises:
            UsageError: the message says what can be done.
        """
        if layers < 2:
            raise UsageError(f"model: a cut needs at least 2 layers, the model has {layers}")
        if positions is not None and self.longest > positions:
            raise UsageError(f"lengths: the model has {positions} positions, got a length of {self.longest}")
        highest = speedup((Cut(1, LEAST_KEPT),))
        if self.target is not None and self.target > highest:
            raise UsageError(
                f"target-speedup: this model reaches at most {highest:.1f} at {self.longest} tokens, "
                f"got {self.target:g}"
            )
