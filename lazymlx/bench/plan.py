"""What to measure: `BenchPlan`, read and checked before anything heavy is imported."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import STEP_SIZE, LazyConfig
from ..errors import UsageError

WHAT = ("ttft", "decode", "memory", "revive")
LENGTHS = (1024, 2048, 4096, 8192, 16384)
CPU_LENGTHS = (1024, 2048, 4096)
LOOKS = "looking, "  # in a variant's name
OWN = "auto"  # the schedule that a model would be used with

Resolve = Callable[[LazyConfig], LazyConfig]  # a model's `resolve`


@dataclass(frozen=True)
class BenchVariant:
    """A way to answer a prompt: stock mlx-lm (no `lazy`), or ours with a configuration."""

    name: str
    lazy: LazyConfig | None
    step: int | None = None  # tokens of the prompt computed at a time; None: all
    decodes: bool = True  # its decode rate is worth knowing: that of stock does not depend on the step

    def step_size(self, length: int) -> int:
        return min(self.step or length, length)


@dataclass(frozen=True)
class BenchPlan:
    """What to measure.

    Attributes:
        lengths: of the prompts, in tokens.
        schedules: presets' names or "layer:keep,...".
        lazy: how a schedule's tokens are chosen.
        what: to report; "revive" is a curve of the decode rate over the number of tokens revived a step.
        stock_steps: prefill step sizes of stock mlx-lm, of which the better one counts; None: the whole prompt at once.
        step: ours.
        repeats: timed runs of each variant at each length.
        tokens: generated in each run where the decode rate is wanted.
        filled: with it, each schedule is also run looking ahead over random maps, with filled keys used so.
        budgets: tokens revived a step, for the curve; None: all.
        budget_s: seconds after which no run may end; None: no limit.

    Raises:
        UsageError: a value that makes no sense.
    """

    lengths: tuple[int, ...] = LENGTHS
    schedules: tuple[str, ...] = ("early", "steep")
    lazy: LazyConfig = field(default_factory=LazyConfig)
    what: tuple[str, ...] = WHAT
    stock_steps: tuple[int | None, ...] = (2048, None)
    step: int | None = STEP_SIZE
    repeats: int = 5
    tokens: int = 32
    filled: tuple[str, ...] = ()
    budgets: tuple[int | None, ...] = (0, 1, 3, 7, 15, None)
    budget_s: float | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.what if name not in WHAT]
        if unknown or not self.what:
            raise UsageError(f"only: expected some of {', '.join(WHAT)}; got {', '.join(unknown) or 'none'}")
        if not self.lengths or min(self.lengths) < 2:
            raise UsageError(f"lengths: expected prompts of at least 2 tokens, got {list(self.lengths)}")
        if self.repeats < 1 or self.tokens < 1:
            raise UsageError(f"repeats, tokens: must be at least 1, got {self.repeats} and {self.tokens}")
        too_small = [step for step in (*self.stock_steps, self.step) if step is not None and step < 1]
        if too_small or not self.stock_steps:
            raise UsageError(f"steps: must be at least 1, got {too_small[0] if too_small else 'none for stock'}")
        if self.budget_s is not None and not self.budget_s > 0:
            raise UsageError(f"budget: must be more than 0 seconds, got {self.budget_s}")

    @property
    def rounds(self) -> int:
        """Timed runs of each variant at each length; without times to measure the warm-up is enough."""
        return self.repeats if {"ttft", "decode"} & set(self.what) else 0

    def variants(self, resolve: Resolve, length: int) -> list[BenchVariant]:
        """Stock at each step size that makes a difference at this length, ours without and with each schedule."""
        stock: dict[int, BenchVariant] = {}
        for step in self.stock_steps:
            variant = BenchVariant("stock", None, step, decodes=not stock)
            stock.setdefault(variant.step_size(length), variant)
        ours = [
            self.with_schedule(name, resolve, lookahead=0 if look is None else self.lazy.lookahead, look=look)
            for name in self.schedules
            for look in (None, *self.filled)
        ]
        return [*stock.values(), BenchVariant("dense", LazyConfig.dense(), self.step), *ours]

    def with_schedule(self, name: str, resolve: Resolve, look: str | None = None, **others: Any) -> BenchVariant:
        if look is not None:
            name, others = f"{name} {LOOKS}{look}", {**others, "schedule": name, "filled": look}
        return BenchVariant(name, resolve(replace(self.lazy, **{"schedule": name, **others})), self.step)

    def curve(self, resolve: Resolve) -> list[BenchVariant]:
        """The first schedule that leaves something behind, with each number of revived tokens."""
        if "revive" not in self.what:
            return []
        ours = [self.with_schedule(name, resolve) for name in self.schedules]
        cut = next((variant.name for variant in ours if variant.lazy is not None and variant.lazy.cuts), None)
        return [] if cut is None else [self.with_schedule(cut, resolve, revive=budget) for budget in self.budgets]


def schedules(text: str) -> tuple[str, ...]:
    """Schedules out of "early,steep" or "early,8:.6,12:.4"; a semicolon parts cuts that are two schedules."""
    found: list[str] = []
    for group in text.split(";"):
        cuts: list[str] = []
        for word in (part.strip() for part in group.split(",")):
            if ":" in word:
                cuts.append(word)
            elif word:
                found.append(word)
        found += [",".join(cuts)] if cuts else []
    return tuple(found)
