"""What to calibrate for. Knows the limits that are the same for every model; loads nothing heavy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import UsageError
from ..schedule import Cut
from .kinds import KINDS, OVERHEAD, check_kinds

SHORTEST = 4 * OVERHEAD  # a shorter prompt has no text to speak of
LEAST_KEPT = 0.03
MOST_LOSS = 10  # nats a token: more than guessing costs
LEAST_CHECKS = 6  # of a kind; fewer speak for nothing, whatever they come to


@dataclass(frozen=True)
class CalibrationPlan:
    """A calibration, before it is run.

    Attributes:
        lengths: of the prompts, in tokens.
        max_loss: nats a token that the dense model's answers may surprise it more, a mean over each kind of prompt.
        target: an ideal speed-up to reach at the least loss; None: the highest one under `max_loss`.
        kinds: of prompts, see `KINDS`.
        prompts: how many of each kind the search uses.
        checks: how many fresh ones of each kind the result is checked on.
        rounds: how many results may be checked until one passes.
        texts: paragraphs of the user's own texts; without any, the embedded document and generated material are used.
        seed: other seeds make other prompts.

    Raises:
        UsageError: a value is outside of its range.
    """

    lengths: tuple[int, ...] = (1024, 2048)
    max_loss: float = 0.1
    target: float | None = None
    kinds: tuple[str, ...] = tuple(KINDS)
    prompts: int = 6
    checks: int = 32
    rounds: int = 3
    texts: Sequence[Sequence[str]] = field(default=(), repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < SHORTEST:
            given = ", ".join(map(str, self.lengths)) or "none"
            raise UsageError(f"lengths: expected one or more of at least {SHORTEST} tokens, got {given}")
        check_kinds(self.kinds)
        if not 0 < self.max_loss <= MOST_LOSS:
            raise UsageError(f"max-loss: expected nats a token, above 0 and at most {MOST_LOSS}, got {self.max_loss:g}")
        if self.target is not None and not self.target > 1:
            raise UsageError(f"target-speedup: expected more than 1, got {self.target:g}")
        for name, least in (("prompts", 1), ("checks", LEAST_CHECKS), ("rounds", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: must be at least {least}, got {getattr(self, name)}")

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
