"""The search for a schedule. It knows candidates, their ideal speed, and trials; nothing about models or prompts.

Two searches: `fastest` under a limit on the loss, and `safest` at a speed that is given. Both go from one cut to more:
a scan of the layers, the least keep behind each, combinations of what was found, and their neighbours. They
take for granted that keeping more never hurts, but not that cutting later never does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from math import inf

import numpy as np

from ..config import LazyConfig
from ..errors import UsageError
from ..schedule import Cut
from .loss import Loss
from .plan import LEAST_KEPT
from .trials import Trials

KEEPS = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, LEAST_KEPT)
SCAN = KEEPS.index(0.25)
MOST_CUTS = 3
GAIN = 1.02  # a schedule has to be this much faster than another to be worth its risk
BATCH = 8  # candidates that race on a prompt that is read once
PATIENCE = 6  # batches without a winner before a search is content

Cuts = tuple[Cut, ...]


@dataclass
class SearchResult:
    """What a search came to: a configuration, its loss on the search's prompts, and the scan of the layers."""

    config: LazyConfig
    loss: Loss
    scan: dict[int, Loss] = field(default_factory=dict)


class Search:
    """A search over the schedules of a model.

    Args:
        layers: the model's depth.
        at: layers where there may be a cut, rising.
        speedup: the ideal speed-up of a list of cuts.
        base: everything but the schedule.
        fits: whether cuts may be tried at all.
        limit: the highest speed-up of a schedule that may be taken; bolder ones are tried to learn from.
        least: a speed-up that is had already: what does not exceed it is not tried.
    """

    def __init__(
        self,
        layers: int,
        at: Sequence[int],
        speedup: Callable[[Sequence[Cut]], float],
        trials: Trials,
        base: LazyConfig,
        fits: Callable[[Cuts], bool] = lambda cuts: True,
        limit: float = inf,
        least: float = 1.0,
    ):
        self.layers, self.at, self.speedup, self.trials, self.base = layers, list(at), speedup, trials, base
        self.fits = fits
        self.limit, self.least = limit, least
        self.best: Cuts = ()
        self.failed: list[Cuts] = []

    # under a limit on the loss

    def fastest(self) -> SearchResult:
        """The fastest configuration that loses no more prompts than it may."""
        scan = self._scan()
        stairs = self._least_keeps(scan)
        for number in range(1, MOST_CUTS + 1):
            self._combine(stairs, number)
        if not self.best:
            return SearchResult(self._config(()), Loss({}), scan)
        self._refine()
        config = self._config(self.best)
        return SearchResult(config, self.trials.race([config], "loss of the best")[config], scan)

    def _scan(self) -> dict[int, Loss]:
        """The loss of a single cut at every layer."""
        every = [(Cut(layer, KEEPS[SCAN]),) for layer in self.at if self._is_worth(layer, len(KEEPS) - 1, self.at)]
        losses = self._race(list(filter(self.fits, every)), "scan of the layers")
        return {cuts[0].layer: loss for cuts, loss in losses.items()}

    def _least_keeps(self, scan: dict[int, Loss]) -> dict[int, list[float]]:
        """For layers worth cutting at: the keeps that a single cut may have there, the least one first.

        Every layer is bisected, all of them in step, so that a prompt is read once a round.
        """
        passing = [layer for layer, loss in scan.items() if self.trials.passes(loss)]
        least = {layer: SCAN if layer in passing else -1 for layer in scan}  # the last keep known to pass; -1: none
        most = {layer: len(KEEPS) if layer in passing else SCAN for layer in scan}  # the first known to fail
        ladder = passing[:: max(len(passing) // 4, 1)]  # for the second and third cut
        while True:
            unsure = [layer for layer in scan if most[layer] - least[layer] > 1]
            worth = [layer for layer in unsure if layer in ladder or self._is_worth(layer, most[layer] - 1, ladder)]
            if not worth:
                break
            middles = {layer: (most[layer] + least[layer]) // 2 for layer in worth}
            candidates = {layer: (Cut(layer, KEEPS[middle]),) for layer, middle in middles.items()}
            losses = self._race(list(filter(self.fits, candidates.values())), "least share to keep")
            for layer, cuts in candidates.items():
                ends = least if cuts in losses and self.trials.passes(losses[cuts]) else most
                ends[layer] = middles[layer]
        stairs = {layer: KEEPS[index::-1] for layer, index in least.items() if index >= 0}
        return {
            layer: [keep for keep in keeps if self.speedup((Cut(layer, keep),)) <= self.limit]
            for layer, keeps in stairs.items()
        }

    def _is_worth(self, layer: int, keep: int, ladder: Sequence[int]) -> bool:
        """Whether a cut at `layer` can still be part of a schedule that is faster than the best."""
        for share in KEEPS[: keep + 1]:
            later = [Cut(other, KEEPS[-1]) for other in ladder if other > layer and share > KEEPS[-1]]
            if self._gains((Cut(layer, share), *later[:1])) or self._gains((Cut(layer, share),)):
                return True
        return False

    def _combine(self, stairs: dict[int, list[float]], number: int) -> None:
        """Look for a faster schedule of `number` cuts, each with a keep that is known to pass alone."""
        candidates = []
        for layers in combinations(sorted(stairs), number):
            for keeps in product(*(stairs[layer][:2] for layer in layers)):
                if all(a > b for a, b in zip(keeps, keeps[1:], strict=False)):
                    candidates.append(tuple(map(Cut, layers, keeps)))
        self._first_to_pass(candidates, f"{number} cuts")

    def _first_to_pass(self, candidates: Sequence[Cuts], text: str) -> None:
        """Race candidates from the fastest on, until one passes or none is worth it."""
        waiting = sorted(filter(self.fits, candidates), key=self.speedup, reverse=True)
        for _ in range(PATIENCE):
            waiting = [cuts for cuts in waiting if self._gains(cuts) and not self._is_hopeless(cuts)]
            if not waiting:
                return
            self._race(waiting[:BATCH], text)
            waiting = waiting[BATCH:]

    def _race(self, candidates: Sequence[Cuts], text: str) -> dict[Cuts, Loss]:
        configs = {cuts: self._config(cuts) for cuts in candidates}
        losses = self.trials.race(configs.values(), text)
        for cuts in sorted(configs, key=self.speedup, reverse=True):
            if not self.trials.passes(losses[configs[cuts]]):
                self.failed.append(cuts)
            elif self._gains(cuts):
                self.best = cuts
        return {cuts: losses[config] for cuts, config in configs.items()}

    def _gains(self, cuts: Cuts) -> bool:
        return GAIN * max(self.speedup(self.best), self.least) < self.speedup(cuts) <= self.limit

    def _is_hopeless(self, cuts: Cuts) -> bool:
        return any(is_as_bold(cuts, failed, self.layers) for failed in self.failed)

    def _refine(self) -> None:
        """Go to a faster neighbour of the best schedule, as often as there is one."""
        before: Cuts | None = None
        while before != self.best:
            before = self.best
            self._first_to_pass(list(self._steps(self.best)), "neighbours")

    def _steps(self, cuts: Cuts) -> Iterator[Cuts]:
        """Schedules that are a step faster: a cut one layer earlier, or one that keeps a notch less."""
        for i, cut in enumerate(cuts):
            floor = cuts[i - 1].layer if i else 0
            less = [keep for keep in KEEPS if keep < cut.keep]
            earlier = [layer for layer in self.at if floor < layer < cut.layer]
            if earlier:
                yield (*cuts[:i], cut._replace(layer=earlier[-1]), *cuts[i + 1 :])
            if less and (i + 1 == len(cuts) or less[0] > cuts[i + 1].keep):
                yield (*cuts[:i], cut._replace(keep=less[0]), *cuts[i + 1 :])

    # at a given speed

    def safest(self, target: float) -> SearchResult:
        """The configuration of the least loss among those whose ideal speed-up is at least `target`.

        Raises:
            UsageError: there is none.
        """
        singles = [cuts for layer in self.at if (cuts := self._reaching((), layer, target)) and self.fits(cuts)]
        if not singles:
            raise UsageError(f"target-speedup: no cut that this model can have reaches {target:g}; ask for less")
        (config, loss), *_ = self.trials.rank([self._config(cuts) for cuts in singles], "one cut")
        for number in range(2, MOST_CUTS + 1):
            more = [self._config(cuts) for cuts in filter(self.fits, self._with_one_more(config.cuts, target))]
            (config, loss), *_ = self.trials.rank([config, *more], f"{number} cuts")
        return SearchResult(config, loss)

    def _reaching(self, before: Cuts, layer: int, target: float, after: Cuts = ()) -> Cuts:
        """Cuts with one at `layer` that keeps as much as `target` allows; none if it cannot be reached."""
        highest = min((cut.keep for cut in before), default=1.0)
        lowest = max((cut.keep for cut in after), default=0.0)
        for keep in np.arange(0.99, 0.005, -0.01).round(2).tolist():
            cuts = (*before, Cut(layer, keep), *after)
            if lowest < keep < highest and self.speedup(cuts) >= target:
                return cuts
        return ()

    def _with_one_more(self, cuts: Cuts, target: float) -> Iterator[Cuts]:
        """One cut more, before the first or behind the last; the one beside it is relaxed to the target."""
        first, last, stride = cuts[0], cuts[-1], max(self.layers // 8, 1)
        apart = max(self.layers // len(self.at), 1)
        for layer in self._between(first.layer - 2 * stride, first.layer)[:: max(stride // 2 // apart, 1)]:
            for keep in (k for k in KEEPS if k > first.keep):
                yield from filter(None, [self._reaching((Cut(layer, keep),), first.layer, target, cuts[1:])])
        for layer in self._between(last.layer + stride, self.layers)[:: max(stride // apart, 1)]:
            for keep in (k for k in KEEPS if k < last.keep):
                yield from filter(None, [self._reaching(cuts[:-1], last.layer, target, (Cut(layer, keep),))])

    def _between(self, start: int, stop: int) -> list[int]:
        return [layer for layer in self.at if start <= layer < stop]

    def _config(self, cuts: Cuts) -> LazyConfig:
        return dataclasses.replace(self.base, schedule=cuts)


def is_as_bold(cuts: Cuts, other: Cuts, layers: int) -> bool:
    """Whether a schedule keeps no more than another one, in any layer: then it cannot be expected to lose less."""
    return bool((shares(cuts, layers) <= shares(other, layers)).all())


def shares(cuts: Cuts, layers: int) -> np.ndarray:
    """The share of tokens in each layer."""
    kept = np.ones(layers)
    for cut in cuts:
        kept[cut.layer :] = cut.keep
    return kept
