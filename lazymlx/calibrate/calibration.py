"""A calibration from beginning to end: search on some prompts, check on fresh ones, and say what came out.

A schedule that fails on the fresh prompts is not taken: those that it lost join the search, which begins again with
them, for a slower schedule, and the next check has fresh prompts of its own. So the loss that is reported is never one
that was searched on, and no schedule is checked until chance lets it pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from statistics import harmonic_mean
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..config import LazyConfig
from ..costs.flops import Looking, Sizes, ideal_speedup, rows_by_layer
from ..engine.model import Model
from ..errors import RunError
from ..nn.maps import Maps
from ..nn.windows import possible
from ..schedule import Cut
from .kinds import Writer
from .loss import Loss, LossMeter
from .plan import CalibrationPlan
from .search import Cuts, Search, SearchResult
from .trials import Book, OnPrompt, Trials, ignore

# Rounding up is left out: it keeps a little more, and on a short prompt that would hide what a share can bear.
BASE = LazyConfig((), min_tokens=0, round_to=1)
BACK = 0.95  # of the speed-up of a schedule that failed: what the next one may have at most

CANDIDATES = 16  # about as many as see all prompts, beside half of the scan
CHECKED = 1.5  # checks until one passes, about

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What a model may leave out, and what that costs.

    Attributes:
        config: to use; its schedule is empty if nothing may be left out.
        maps: to look ahead with at its cuts; None where nothing looks ahead.
        speedup: ideal, of the schedule's shares at the longest length.
        measured_speedup: ideal, of the tokens computed on the check's prompts, protected ones included.
        search: the loss on the search's prompts.
        check: the loss on fresh prompts.
        blind: the same without looking ahead, as far as it was measured until it lost too much.
        at_most: for each kind of prompt, what its fresh ones speak for with 95% confidence, whichever of the checks
            that there might have been passed.
        scan: for each layer, the loss of a single cut there that keeps a quarter; most failed before all prompts.
        refused: what the search took and a check did not, with the loss there.
        broke: the kind that lost most in the last refused schedule, or else in the latest single cut that failed.
    """

    config: LazyConfig
    maps: Maps | None
    speedup: float
    measured_speedup: float
    search: Loss
    check: Loss
    blind: Loss
    at_most: dict[str, float]
    scan: dict[int, Loss]
    refused: dict[str, Loss]
    broke: str

    def sentence(self, max_loss: float) -> str:
        """What came out, for a person."""
        if not self.config.cuts:
            return (
                f"this model cannot be cut without losing more than {max_loss:g} nats a token, as far as was looked: "
                f"its schedule is empty, and every prompt is computed in full; {self.broke} broke first"
            )
        return (
            f"{self.config.schedule}: {self.speedup:.2f}x fewer operations ({self.measured_speedup:.2f}x with the "
            f"protected tokens of the prompts used here); on fresh prompts {self.check}; at most "
            f"{max(self.at_most.values()):.3f} nats a token in every kind with 95% confidence"
            + (f"; without looking ahead {self.blind}" if self.maps is not None else "")
            + (f"; of bolder schedules, {self.broke} broke first" if self.broke else "")
        )

    def record(self) -> dict[str, Any]:
        """Ready for JSON: the fields of `LazyConfig`, and how they did."""
        return {
            "schedule": str(self.config.schedule),
            "min_tokens": self.config.min_tokens,
            "lookahead": self.config.lookahead,
            "maps": self.maps is not None,
            "speedup": round(self.speedup, 3),
            "measured_speedup": round(self.measured_speedup, 3),
            "check": self.check.record(),
            "blind": self.blind.record(),
            "at_most": {kind: round(nats, 4) for kind, nats in self.at_most.items()},
            "search": self.search.record(),
            "scan": {layer: loss.record() for layer, loss in self.scan.items()},
            "refused": {schedule: loss.record() for schedule, loss in self.refused.items()},
            "broke": self.broke,
        }


class Calibrator:
    """Runs a plan on a model.

    Args:
        maps: of the cuts that are considered, with and without looking ahead; None: every cut is, and nothing looks.
        book: keeps what was measured, and knows what was measured before.
        on_prompt: called with every prompt.
        say: called with a line on what each part of the search came to.

    Raises:
        UsageError: the plan does not fit the model.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        plan: CalibrationPlan,
        *,
        maps: Maps | None = None,
        book: Book | None = None,
        on_prompt: OnPrompt = ignore,
        say: OnLine = lambda line: None,
    ):
        self.plan, self.book, self.on_prompt, self.say = plan, book or Book(), on_prompt, say
        self.maps, self.base = maps, BASE if maps is not None else replace(BASE, lookahead=0)
        model.look_with(maps)
        self.windows = model.windows
        self.sizes = Sizes.of_model(model)
        plan.check_model(len(self.windows), model.max_positions, self.speedup)
        self.meter = LossMeter(model, tokenizer)

    def speedup(self, cuts: Sequence[Cut], base: LazyConfig | None = None) -> float:
        """The ideal speed-up of a schedule at the plan's longest length; `base` says whether it looks ahead."""
        return self._ideal(replace(base or self.base, schedule=tuple(cuts)), self.plan.longest)

    def _ideal(self, config: LazyConfig, length: int, kept: Sequence[int] | None = None) -> float:
        """In operations; in tokens and layers where a model's operations are not counted."""
        cuts = config.cuts
        if self.sizes is not None:
            return ideal_speedup(self.sizes, cuts, length, kept, Looking.of(config, self.maps))
        behind = [cut.keep * length for cut in cuts] if kept is None else list(kept)
        layers = len(self.windows)
        return layers * length / sum(rows_by_layer(layers, cuts, [length, *behind]))

    def minutes(self) -> float:
        """About how long `run` will take, from a first prompt of the greatest length."""
        plan, layers = self.plan, len(self.windows)
        prompt = self._writer("a first prompt").prompt(plan.kinds[0], plan.longest)
        config = replace(BASE, schedule=((max(layers * 3 // 4, 1), 0.25),))
        timed = Book()
        timed.outcomes(self.meter, prompt, [config])  # reads it, asks the dense model, and compiles
        timed = Book()
        timed.outcomes(self.meter, prompt, [replace(config, recent=config.recent + 1)])
        answers = len(plan.kinds) * (plan.prompts * (layers // 2 + CANDIDATES) + plan.checks * CHECKED)
        return answers * timed.seconds / 60

    def run(self) -> Calibration:
        """Search, and check, until a check passes.

        Raises:
            RunError: what was found may be within the limit, and the checks are too few to tell.
        """
        searched, refused = self._trials("search", self.plan.prompts), dict[LazyConfig, Loss]()
        scan: dict[int, Loss] = {}
        needed = 0
        for number in range(1, self.plan.rounds + 1):
            found = self._search(searched, refused)
            scan = scan or found.scan
            if not found.config.cuts:
                break
            fresh = self._trials(f"check {number}", self.plan.checks)
            self.say(f"{self._named(found.config)}, {self._speed(found.config):.2f}x, in the search: {found.loss}")
            check = fresh.race([found.config], "checking on fresh prompts")[found.config]
            if self.plan.target is not None or self._is_supported(fresh, check):
                return self._result(found.config, found.loss, check, scan, refused, self._blind(fresh, found.config))
            needed = max(needed, self._needed(fresh, check))
            self.say(f"on fresh prompts: {check}; {self._why(fresh, check)}")
            refused[found.config] = check
            hard = [prompt for prompt in fresh.prompts if fresh.fatal[prompt]]
            searched.learn(hard, of=fresh.prompts[: len(check.outcomes)])
        if needed:
            raise RunError(
                f"checks: nothing is stored: {self.plan.checks} of a kind are too few to show that a schedule loses at "
                f"most {self.plan.max_loss:g} nats a token with 95% confidence; ask for about {needed} with --checks"
            )
        return self._result(self.base, Loss({}), Loss({}), scan, refused, Loss({}))

    def _blind(self, fresh: Trials, config: LazyConfig) -> Loss:
        """What the same schedule loses without looking ahead."""
        if not self._looks(config):
            return Loss({})
        blind = replace(config, lookahead=0)
        return fresh.race([blind], "the same without looking ahead")[blind]

    def _is_supported(self, fresh: Trials, check: Loss) -> bool:
        """Whether a check shows that every kind stays within the limit."""
        return fresh.passes(check) and self._bound(check) <= self.plan.max_loss

    def _bound(self, check: Loss) -> float:
        return max(check.at_most(kind, self.plan.rounds) for kind in check.kinds)

    def _needed(self, fresh: Trials, check: Loss) -> int:
        """Prompts of a kind that it takes where a schedule has not lost too much, only not been shown to; else none."""
        return check.needed(self.plan.max_loss, self.plan.rounds) if fresh.passes(check) else 0

    def _why(self, fresh: Trials, check: Loss) -> str:
        if fresh.passes(check):
            return f"that does not show that every kind stays within the limit (at most {self._bound(check):.3f})"
        return f"{check.worst} broke first; what was lost joins the search"

    def _writer(self, part: str) -> Writer:
        plan = self.plan
        return Writer(self.meter.encoder.count, f"{part} of {plan.seed}", plan.kinds, plan.texts)

    def _trials(self, part: str, number: int) -> Trials:
        prompts = self._writer(part).prompts(number, self.plan.lengths)
        return Trials(self.meter, prompts, self.plan.max_loss, self.book, self.on_prompt, self.plan.target is not None)

    def _search(self, trials: Trials, refused: Iterable[LazyConfig]) -> SearchResult:
        """By looking ahead, and without: it costs operations, and not every model's answers need what it finds."""
        limit = BACK * min(map(self._speed, refused), default=inf)
        found = self._search_with(self.base, trials, limit)
        if self.maps is None:
            return found
        blind = self._search_with(replace(self.base, lookahead=0), trials, limit, least=self._speed(found.config))
        if self.plan.target is not None:
            return min(found, blind, key=lambda each: each.loss.mean(each.loss.worst))
        return blind if blind.config.cuts else found

    def _search_with(self, base: LazyConfig, trials: Trials, limit: float, least: float = 1.0) -> SearchResult:
        def fits(cuts: Cuts) -> bool:
            return possible(cuts, self.windows) == cuts

        layers = len(self.windows)
        at = range(1, layers) if self.maps is None else sorted(self.maps.cuts)
        search = Search(layers, at, partial(self.speedup, base=base), trials, base, fits, limit, least)
        return search.fastest() if self.plan.target is None else search.safest(self.plan.target)

    def _result(
        self,
        config: LazyConfig,
        search: Loss,
        check: Loss,
        scan: dict[int, Loss],
        refused: dict[LazyConfig, Loss],
        blind: Loss,
    ) -> Calibration:
        speedups = [self._ideal(config, o.tokens, o.kept) for o in check.outcomes]
        rounds = 1 if self.plan.target is not None else self.plan.rounds
        failed = [loss for loss in (*list(refused.values())[::-1], *list(scan.values())[::-1]) if self._failed(loss)]
        return Calibration(
            config=LazyConfig(
                config.schedule, lookahead=config.lookahead, min_tokens=min(self.plan.lengths)
            ),  # shorter prompts were not tried
            maps=self.maps.only(cut.layer for cut in config.cuts) if self.maps and self._looks(config) else None,
            speedup=self._speed(config),
            measured_speedup=harmonic_mean(speedups) if speedups else 1.0,
            search=search,
            check=check,
            blind=blind,
            at_most={kind: check.at_most(kind, rounds) for kind in check.kinds},
            scan=scan,
            refused={self._named(refusal): loss for refusal, loss in refused.items()},
            broke=failed[0].worst if failed else "",
        )

    def _looks(self, config: LazyConfig) -> bool:
        return bool(config.cuts) and self.maps is not None and self.maps.serve(config)

    def _speed(self, config: LazyConfig) -> float:
        return self.speedup(config.cuts, config)

    def _named(self, config: LazyConfig) -> str:
        return str(config.schedule) + (" without looking ahead" if self.maps and not self._looks(config) else "")

    def _failed(self, loss: Loss) -> bool:
        return bool(loss.kinds) and loss.mean(loss.worst) > self.plan.max_loss
