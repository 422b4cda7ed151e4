"""Candidates against prompts: every outcome is measured once and written down, so that a run can go on later.

A candidate leaves the race when it has lost more on a kind of prompt than that may lose in all; most bad ones are gone
after a few prompts. Prompts on which many candidates lost come first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from ..config import LazyConfig
from ..errors import UsageError
from ..journal import Journal, Row
from .kinds import Prompt
from .loss import Loss, Outcome

Measure = Callable[[Prompt, Sequence[LazyConfig]], list[Outcome]]
OnPrompt = Callable[[str, str, int, int], None]
"""Called with what is going on, a note about it, prompts done, and prompts in all."""
ABOUT = "about"  # the journal's first row, which says what the others are of


def ignore(step: str, note: str, done: int, total: int) -> None:
    """An `OnPrompt` for those who do not want to know."""


def open_journal(path: Path, about: Mapping[str, Any], resume: bool) -> Journal:
    """The outcomes on the disk, if any, of the same model and version.

    Raises:
        UsageError: there are some and `resume` was not asked for, or they are of something else.
    """
    if path.exists() and not resume:
        raise UsageError(f"an unfinished calibration is kept in {path}; go on with it by --resume, or delete the file")
    journal = Journal(path, _key_of, resume)
    if journal.rows and journal.rows.get(ABOUT) != {ABOUT: dict(about)}:
        raise UsageError(f"--resume: {path} is of another model or version of lazymlx; delete the file to begin anew")
    return journal


def _key_of(row: Row) -> object:
    return ABOUT if ABOUT in row else (row["prompt"], row["config"])


class Book:
    """Outcomes that are known, and time: `seconds` an outcome measured by now."""

    def __init__(self, journal: Journal | None = None, about: Mapping[str, Any] | None = None):
        self.journal, self.about = journal, {ABOUT: dict(about or {})}
        self.known: dict[tuple[str, str], Outcome] = {}
        self.measured, self.spent = 0, 0.0
        for key, row in ({} if journal is None else journal.rows).items():
            if key != ABOUT:
                fields = {name: value for name, value in row.items() if name not in ("prompt", "config")}
                self.known[row["prompt"], row["config"]] = Outcome(**{**fields, "kept": tuple(fields["kept"])})

    @property
    def seconds(self) -> float:
        return self.spent / max(self.measured, 1)

    def outcomes(self, measure: Measure, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        """Known ones, and those that are measured now."""
        key = sha256(prompt.text.encode()).hexdigest()[:16]
        keys = {config: (key, describe(config)) for config in configs}
        todo = [config for config in configs if keys[config] not in self.known]
        if todo:
            start = perf_counter()
            for config, outcome in zip(todo, measure(prompt, todo), strict=True):
                self._keep(keys[config], outcome)
            self.measured, self.spent = self.measured + len(todo), self.spent + perf_counter() - start
        return [self.known[keys[config]] for config in configs]

    def _keep(self, key: tuple[str, str], outcome: Outcome) -> None:
        self.known[key] = outcome
        if self.journal is not None:
            if not self.journal.rows:
                self.journal.add(self.about)
            self.journal.add({"prompt": key[0], "config": key[1], **asdict(outcome)})


class Trials:
    """The prompts of a search, and what came out of them so far."""

    def __init__(
        self,
        measure: Measure,
        prompts: Iterable[Prompt],
        max_loss: float,
        book: Book | None = None,
        on_prompt: OnPrompt = ignore,
        all_the_way: bool = False,
    ):
        self.all_the_way = all_the_way  # nobody leaves a race: where a loss is asked for, whatever it is
        self.measure, self.prompts, self.max_loss = measure, list(prompts), max_loss
        self.book, self.on_prompt = book or Book(), on_prompt
        self.seen = Counter(prompt.kind for prompt in self.prompts)  # what they stand for, see `learn`
        self.fatal: Counter[Prompt] = Counter()  # on how many candidates lost too much at each prompt

    def bearable(self, loss: Loss) -> bool:
        """Whether no kind has lost more than all its prompts may."""
        return all(loss.total(kind) <= self.max_loss * count + 1e-9 for kind, count in self.seen.items())

    def learn(self, hard: Sequence[Prompt], of: Sequence[Prompt]) -> None:
        """Add the hard ones of some more prompts; the others tell no candidates apart and would only take time."""
        self.prompts += hard
        self.seen.update(prompt.kind for prompt in of)

    def race(self, configs: Iterable[LazyConfig], text: str = "") -> dict[LazyConfig, Loss]:
        """Measure until a candidate has lost more prompts than it may; those that lose fewer see all of them."""
        return self._run(list(dict.fromkeys(configs)), self._order(), text, self.all_the_way)

    def rank(self, configs: Iterable[LazyConfig], text: str = "") -> list[tuple[LazyConfig, Loss]]:
        """The candidates from the least loss on; the worse half leaves after a quarter and a half of the prompts."""
        alive, order = list(dict.fromkeys(configs)), self._order()
        for share in (4, 2, 1):
            losses = self._run(alive, order[: -(-len(order) // share)], text, all_the_way=True)
            ranked = sorted(losses.items(), key=lambda entry: (entry[1].mean(entry[1].worst), entry[1].nats))
            if share > 1:
                alive = [config for config, _ in ranked[: max(len(ranked) // 2, 1)]]
        return ranked

    def passes(self, loss: Loss) -> bool:
        """Whether a candidate came through a race."""
        return len(loss.outcomes) == len(self.prompts) and self.bearable(loss)

    def _order(self) -> list[Prompt]:
        return sorted(self.prompts, key=lambda prompt: -self.fatal[prompt])

    def _run(
        self, alive: list[LazyConfig], order: Sequence[Prompt], text: str, all_the_way: bool = False
    ) -> dict[LazyConfig, Loss]:
        outcomes: dict[LazyConfig, list[Outcome]] = {config: [] for config in alive}
        for i, prompt in enumerate(order):
            if not alive:
                break
            self.on_prompt(text, f": {len(alive)} of {len(outcomes)} left", i, len(order))
            for config, outcome in zip(alive, self.book.outcomes(self.measure, prompt, alive), strict=True):
                outcomes[config].append(outcome)
                self.fatal[prompt] += outcome.rise > self.max_loss
            alive = [config for config in alive if all_the_way or self.bearable(Loss.of(order, outcomes[config]))]
        return {config: Loss.of(order, found) for config, found in outcomes.items()}


def describe(config: LazyConfig) -> str:
    """A configuration in a line: its schedule, and how tokens are scored."""
    ahead = f" lookahead {config.lookahead}" if config.lookahead else ""
    return f"{config.schedule} window {config.window} pool {config.pool} {config.reduce}{ahead}"
