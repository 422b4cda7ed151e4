"""A calibration from beginning to end: search on some prompts, check on fresh ones, and say what came out.

A schedule that fails on the fresh prompts is not taken: those that it lost join the search, which begins again with
them, for a slower schedule, and the next check has fresh prompts of its own. So the loss that is reported is never one
that was searched on, and no schedule is checked until chance lets it pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import inf
from statistics import harmonic_mean
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..config import Cut, LazyConfig, Schedule
from ..costs.flops import Sizes, ideal_speedup, rows_by_layer
from ..engine.model import Model
from ..nn.windows import possible
from .measure import Meter, Outcome
from .plan import Plan
from .prompts import Writer
from .search import Cuts, Found, Search
from .trials import Journal, Loss, OnPrompt, Trials, ignore

# Rounding up is left out: it keeps a little more, and on a short prompt that would hide what a share can bear.
BASE = LazyConfig((), min_tokens=0, round_to=1)
BACK = 0.95  # of the speed-up of a schedule that failed: what the next one may have at most

Say = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What a model may leave out, and what that costs.

    Attributes:
        config: to use; its schedule is empty if nothing may be left out.
        speedup: ideal, of the schedule's shares at the longest length.
        measured_speedup: ideal, of the tokens computed on the check's prompts, protected ones included.
        search: the loss on the search's prompts.
        check: the loss on fresh prompts.
        at_most: what that speaks for with 95% confidence, whichever of the checks that there might have been passed.
        kinds: the same, for each kind of prompt.
        scan: for each layer, the loss of a single cut there that keeps a quarter; most failed before all prompts.
        refused: what the search took and a check did not, with the loss there.
    """

    config: LazyConfig
    speedup: float
    measured_speedup: float
    search: Loss
    check: Loss
    at_most: float
    kinds: dict[str, Loss]
    scan: dict[int, Loss]
    refused: dict[str, Loss]

    def sentence(self, max_loss: float) -> str:
        """What came out, for a person."""
        if not self.config.cuts:
            return (
                f"this model cannot be cut without changing more than {max_loss:.1%} of its answers, as far as was "
                "looked: its schedule is empty, and every prompt is computed in full"
            )
        return (
            f"{self.config.schedule}: {self.speedup:.2f}x fewer operations ({self.measured_speedup:.2f}x with the "
            f"protected tokens of the prompts used here); on fresh prompts {self.check}, "
            f"at most {self.at_most:.1%} with 95% confidence"
        )

    def record(self) -> dict[str, Any]:
        """Ready for JSON: the fields of `LazyConfig`, and how they did."""
        config = {name: getattr(self.config, name) for name in ("window", "pool", "reduce", "min_tokens")}
        return {
            "schedule": str(self.config.schedule),
            **config,
            "speedup": round(self.speedup, 3),
            "measured_speedup": round(self.measured_speedup, 3),
            "check": {**asdict(self.check), "at_most": round(self.at_most, 4)},
            "check_by_kind": {kind: asdict(loss) for kind, loss in self.kinds.items()},
            "search": asdict(self.search),
            "scan": {layer: asdict(loss) for layer, loss in self.scan.items()},
            "refused": {schedule: asdict(loss) for schedule, loss in self.refused.items()},
        }


class Calibrator:
    """Runs a plan on a model.

    Args:
        journal: keeps what was measured, and knows what was measured before.
        on_prompt: is told about every prompt.
        say: is told, in a line, what each part of the search came to.

    Raises:
        UsageError: the plan does not fit the model.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        plan: Plan,
        *,
        journal: Journal | None = None,
        on_prompt: OnPrompt = ignore,
        say: Say = lambda line: None,
    ):
        self.plan, self.journal, self.on_prompt, self.say = plan, journal, on_prompt, say
        self.windows = model.windows
        self.sizes = Sizes.of(model.family.core(model).args, self.windows)
        plan.check_model(len(self.windows), model.max_positions, self.speedup)
        self.meter = Meter(model, tokenizer)

    def speedup(self, cuts: Sequence[Cut]) -> float:
        """The ideal speed-up of a schedule at the plan's longest length."""
        return self._ideal(cuts, self.plan.longest)

    def _ideal(self, cuts: Sequence[Cut], length: int, kept: Sequence[int] | None = None) -> float:
        """In operations; in tokens and layers where a model's operations are not counted."""
        if self.sizes is not None:
            return ideal_speedup(self.sizes, cuts, length, kept)
        behind = [cut.keep * length for cut in cuts] if kept is None else list(kept)
        layers = len(self.windows)
        return layers * length / sum(rows_by_layer(layers, cuts, [length, *behind]))

    def run(self) -> Calibration:
        """Search, and check, until a check passes."""
        searched, refused = self._trials("search", self.plan.prompts), {}
        scan: dict[int, Loss] = {}
        for number in range(1, self.plan.rounds + 1):
            found = self._search(searched, list(refused))
            scan = scan or found.scan
            if not found.config.cuts:
                return self._result(found.config, found.loss, [], [], scan, refused)
            fresh = self._trials(f"check {number}", self.plan.checks)
            self.say(f"{found.config.schedule}, {self.speedup(found.config.cuts):.2f}x, in the search: {found.loss}")
            outcomes = fresh.outcomes_of(found.config, "checking on fresh prompts")
            check = Loss.of(outcomes)
            if self.plan.target is not None or check.failed <= fresh.allowed:
                kinds = [prompt.kind for prompt in fresh.prompts]
                return self._result(found.config, found.loss, outcomes, kinds, scan, refused)
            self.say(f"on fresh prompts: {check}; that is too many, so these join the search")
            refused[found.config.cuts] = check
            hard = [prompt for prompt, outcome in zip(fresh.prompts, outcomes, strict=True) if outcome.differs]
            searched.learn(hard, of=len(outcomes))
        return self._result(BASE, Loss(0, len(searched.prompts), 0.0), [], [], scan, refused)

    def _trials(self, part: str, number: int) -> Trials:
        plan = self.plan
        writer = Writer(self.meter.count, f"{part} of {plan.seed}", plan.texts)
        return Trials(self.meter, writer.prompts(number, plan.lengths), plan.max_loss, self.journal, self.on_prompt)

    def _search(self, trials: Trials, refused: Sequence[Cuts]) -> Found:
        limit = BACK * min((self.speedup(cuts) for cuts in refused), default=inf)

        def fits(cuts: Cuts) -> bool:
            return possible(cuts, self.windows) == cuts

        search = Search(len(self.windows), self.speedup, trials, BASE, fits, limit)
        return search.fastest() if self.plan.target is None else search.safest(self.plan.target)

    def _result(
        self,
        config: LazyConfig,
        search: Loss,
        outcomes: Sequence[Outcome],
        kinds: Sequence[str],
        scan: dict[int, Loss],
        refused: dict[Cuts, Loss],
    ) -> Calibration:
        speedups = [self._ideal(config.cuts, o.tokens, o.kept) for o in outcomes]
        by_kind = {
            kind: Loss.of([o for o, k in zip(outcomes, kinds, strict=True) if k == kind]) for kind in sorted(set(kinds))
        }
        return Calibration(
            config=LazyConfig(
                config.schedule,
                window=config.window,
                pool=config.pool,
                reduce=config.reduce,
                min_tokens=min(self.plan.lengths),  # shorter prompts were not tried
            ),
            speedup=self.speedup(config.cuts),
            measured_speedup=harmonic_mean(speedups) if speedups else 1.0,
            search=search,
            check=Loss.of(outcomes),
            at_most=Loss.of(outcomes).at_most(1 if self.plan.target is not None else self.plan.rounds),
            kinds=by_kind,
            scan=scan,
            refused={str(Schedule(cuts)): loss for cuts, loss in refused.items()},
        )
