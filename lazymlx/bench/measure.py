"""All variants at all lengths: alternating, so that a machine that slows down slows all of them, and in good time.

At each length every variant runs once as a warm-up (which also shows its memory; thrice where kernels are compiled),
then in rounds: stock, dense, schedule after schedule, and again. A run is not begun when it would end past the budget;
what was measured until then stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import mlx.core as mx

from ..costs.flops import Looking, Sizes, ideal_speedup
from ..nn.compiling import compiles
from ..ranks.group import ALONE, Ranks
from ..wired import WIRED
from .models import Pair
from .plan import BenchPlan, BenchVariant
from .runs import Record, measured_memory, new_record, timed

GROWTH = 1.5  # exponent by which a longer prompt is expected to take longer, before it was seen

Watcher = Callable[[str], None]


class BudgetSpent(Exception):
    """The next run would end too late. Ends the measurement, never leaves this module."""


class Budget:
    """Seconds that a measurement may take; None: no limit. Of several ranks, the first one's clock counts."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = perf_counter, ranks: Ranks = ALONE):
        self._clock, self._ranks = clock, ranks
        self._end = None if seconds is None else clock() + seconds

    def reserve(self, seconds: float) -> None:
        """Raises `BudgetSpent` unless this much is left."""
        end = self._end
        if end is not None and self._ranks.decided("time", lambda: self._clock() + seconds > end):
            raise BudgetSpent


def ignore(event: str) -> None:
    """A watcher that does not look."""


@dataclass
class Bench:
    """A measurement under way: `records` grows, and is worth reporting at any time.

    Attributes:
        first_answer_s: of a process of its own, if somebody measured it.
        after_run: called with what ran, after each of `runs` runs.
        after_length: called when all is measured at a length.
        clock: by which the budget is kept.
    """

    pair: Pair
    plan: BenchPlan
    after_run: Watcher = ignore
    after_length: Watcher = ignore
    clock: Callable[[], float] = perf_counter
    records: list[Record] = field(default_factory=list)
    curve: list[Record] = field(default_factory=list)  # decode rate over the number of tokens revived a step
    first_answer_s: float | None = None  # of a fresh process
    complete: bool = False

    def __post_init__(self) -> None:
        resolve = self.pair.ours.resolve
        self._variants = {length: self.plan.variants(resolve, length) for length in sorted(self.plan.lengths)}
        self._curve = self.plan.curve(resolve)
        self._sizes = Sizes.of(self.pair.args, self.pair.ours.windows)
        self._budget = Budget(self.plan.budget_s, self.clock, self.pair.ours.ranks)
        self._seconds: dict[BenchVariant, tuple[int, float]] = {}  # length and time of the newest run

    @property
    def runs(self) -> int:
        """How many runs there are to make."""
        prompts = sum(len(variants) for variants in self._variants.values())
        return prompts * (1 + self.plan.rounds) + len(self._curve) * (1 + self.plan.repeats)

    def run(self) -> None:
        """Measure everything, or as much as the budget allows."""
        with WIRED.held():
            try:
                for length in self._variants:
                    self._at(length)
                    self.after_length(f"{length}")
                if self._curve:
                    self._revive(max(self._variants))
                self.complete = True
            except BudgetSpent:
                pass

    def _at(self, length: int) -> None:
        prompt, variants = self.pair.prompt(length), self._variants[length]
        records = [self._warm_up(variant, prompt) for variant in variants]
        tokens = self.plan.tokens if "decode" in self.plan.what else 0
        for _ in range(self.plan.rounds):
            self._round(variants, records, prompt, tokens)

    def _warm_up(self, variant: BenchVariant, prompt: mx.array) -> Record:
        length = len(prompt)
        record = new_record(variant, length)
        self._budget.reserve(self._expected(variant, length))
        seconds = measured_memory(self.pair, variant, prompt, record)
        if self.plan.rounds and compiles():  # for minutes, a prompt's kernels and then an answer's, and never again
            for _ in range(2):
                begin = perf_counter()
                timed(self.pair, variant, prompt, 2 if "decode" in self.plan.what and variant.decodes else 0)
                seconds = perf_counter() - begin
        self._note(variant, length, seconds)
        if variant.lazy is not None and variant.lazy.cuts and self._sizes is not None:
            looking = Looking.of(variant.lazy, self.pair.ours.engine.maps)
            record.ideal = ideal_speedup(self._sizes, variant.lazy.cuts, length, looking=looking)
            record.ideal_kept = ideal_speedup(self._sizes, variant.lazy.cuts, length, record.kept, looking)
        self.records.append(record)
        return record

    def _revive(self, length: int) -> None:
        """The decode rate with each number of revived tokens."""
        prompt, self.curve = self.pair.prompt(length), [new_record(variant, length) for variant in self._curve]
        self._round(self._curve, [new_record(variant, length) for variant in self._curve], prompt, self.plan.tokens)
        for _ in range(self.plan.repeats):
            self._round(self._curve, self.curve, prompt, self.plan.tokens)

    def _round(
        self, variants: Sequence[BenchVariant], records: Sequence[Record], prompt: mx.array, tokens: int
    ) -> None:
        """One run of each, or none: rounds are compared as wholes."""
        length = len(prompt)
        self._budget.reserve(sum(self._expected(variant, length) for variant in variants))
        for variant, record in zip(variants, records, strict=True):
            begin = perf_counter()
            ttft, rate = timed(self.pair, variant, prompt, tokens if variant.decodes else 0)
            self._note(variant, length, perf_counter() - begin)
            record.ttft_s.append(ttft)
            record.decode_tps += [] if rate is None else [rate]

    def _expected(self, variant: BenchVariant, length: int) -> float:
        before, seconds = self._seconds.get(variant, (length, 0.0))
        return seconds * (length / before) ** GROWTH

    def _note(self, variant: BenchVariant, length: int, seconds: float) -> None:
        self._seconds[variant] = (length, seconds)
        self.after_run(f"{length} tokens, {variant.name}")
