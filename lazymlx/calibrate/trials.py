"""Candidates against prompts: every outcome is measured once, kept, and written down so that a run can go on later.

A candidate leaves the race at the prompt that it loses too often; most bad ones are gone after a few. Prompts on which
many candidates failed come first.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..config import LazyConfig
from ..errors import RunError, UsageError
from .measure import Outcome
from .prompts import Prompt

Measure = Callable[[Prompt, Sequence[LazyConfig]], list[Outcome]]
OnPrompt = Callable[[str, str, int, int], None]
"""Is told what is going on, a note about it, prompts done, and prompts in all."""


def ignore(step: str, note: str, done: int, total: int) -> None:
    """An `OnPrompt` for those who do not want to know."""


@dataclass(frozen=True)
class Loss:
    """What a configuration costs, on the prompts that it was measured on."""

    failed: int
    prompts: int
    kl: float  # mean, in nats

    @property
    def share(self) -> float:
        return self.failed / max(self.prompts, 1)

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Loss":
        kl = sum(outcome.kl for outcome in outcomes) / max(len(outcomes), 1)
        return cls(sum(outcome.differs for outcome in outcomes), len(outcomes), kl)

    def at_most(self, checks: int = 1) -> float:
        """The loss that this one speaks for with 95% confidence (Clopper and Pearson's upper bound).

        Args:
            checks: how many might have been made until one passed; the confidence is shared among them (Bonferroni).
        """
        low, high = self.share, 1.0
        for _ in range(40):
            p = (low + high) / 2
            seen_so_few = sum(
                math.comb(self.prompts, i) * p**i * (1 - p) ** (self.prompts - i) for i in range(self.failed + 1)
            )
            low, high = (p, high) if seen_so_few > 0.05 / checks else (low, p)
        return high

    def __str__(self) -> str:
        return f"{self.failed} of {self.prompts} answers differ ({self.share:.1%}), KL {self.kl:.3f}"


class Journal:
    """Outcomes on the disk, a line each, under a first line that says what they are of."""

    def __init__(self, path: Path, about: Mapping[str, Any], resume: bool):
        self.path, self.about = path, json.loads(json.dumps(about))
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        if path.exists() and resume:
            self._read()
        elif path.exists():
            raise UsageError(
                f"an unfinished calibration is kept in {path}; go on with it by --resume, or delete the file"
            )

    def _begin(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.about) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"journal: {self.path} cannot be written: {error.strerror}") from error

    def _read(self) -> None:
        lines = self.path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # the last one may have been cut short
        try:
            if json.loads(whole[0]) != self.about:
                raise ValueError
            for line in whole[1:]:
                entry = json.loads(line)
                key = entry.pop("prompt"), entry.pop("config")
                self.outcomes[key] = Outcome(**{**entry, "kept": tuple(entry["kept"])})
        except (ValueError, LookupError, TypeError):
            raise UsageError(
                f"--resume: {self.path} is of another model or version of lazymlx; delete the file to begin anew"
            ) from None
        os.truncate(self.path, sum(len(line.encode()) for line in whole))

    def note(self, key: tuple[str, str], outcome: Outcome) -> None:
        if not self.path.exists():  # not before there is something to keep: what is refused leaves nothing behind
            self._begin()
        self.outcomes[key] = outcome
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"prompt": key[0], "config": key[1], **asdict(outcome)}) + "\n")

    def finish(self) -> None:
        """The calibration is done; nothing is left to resume."""
        self.path.unlink(missing_ok=True)


class Trials:
    """The prompts of a search, and what came out of them so far."""

    def __init__(
        self,
        measure: Measure,
        prompts: Iterable[Prompt],
        max_loss: float,
        journal: Journal | None = None,
        on_prompt: OnPrompt = ignore,
    ):
        self.measure, self.prompts, self.max_loss = measure, list(prompts), max_loss
        self.journal, self.on_prompt = journal, on_prompt
        self.outcomes: dict[tuple[str, str], Outcome] = {} if journal is None else journal.outcomes
        self.seen = len(self.prompts)  # what they stand for, see `learn`
        self.fatal: Counter[Prompt] = Counter()  # on how many candidates each prompt was lost

    @property
    def allowed(self) -> int:
        """Prompts that may be lost."""
        return int(self.max_loss * self.seen + 1e-9)

    def learn(self, hard: Sequence[Prompt], of: int) -> None:
        """Add the hard ones of some more prompts; the others tell no candidates apart and would only take time."""
        self.prompts += hard
        self.seen += of

    def race(self, configs: Iterable[LazyConfig], text: str = "") -> dict[LazyConfig, Loss]:
        """Measure until a candidate has lost more prompts than it may; those that lose fewer see all of them."""
        return self._run(list(dict.fromkeys(configs)), self._order(), self.allowed, text)

    def rank(self, configs: Iterable[LazyConfig], text: str = "") -> list[tuple[LazyConfig, Loss]]:
        """The candidates from the least loss on; the worse half leaves after a quarter and a half of the prompts."""
        alive, order = list(dict.fromkeys(configs)), self._order()
        for share in (4, 2, 1):
            losses = self._run(alive, order[: -(-len(order) // share)], len(order), text)
            ranked = sorted(losses.items(), key=lambda entry: (entry[1].failed, entry[1].kl))
            if share > 1:
                alive = [config for config, _ in ranked[: max(len(ranked) // 2, 1)]]
        return ranked

    def passes(self, loss: Loss) -> bool:
        """Whether a candidate came through a race."""
        return loss.prompts == len(self.prompts) and loss.failed <= self.allowed

    def outcomes_of(self, config: LazyConfig, text: str) -> list[Outcome]:
        """What one candidate comes to on every prompt."""
        outcomes = []
        for i, prompt in enumerate(self.prompts):
            self.on_prompt(text, "", i, len(self.prompts))
            outcomes += self._outcomes(prompt, [config])
        return outcomes

    def _order(self) -> list[Prompt]:
        return sorted(self.prompts, key=lambda prompt: -self.fatal[prompt])

    def _run(self, alive: list[LazyConfig], order: Sequence[Prompt], allowed: int, text: str) -> dict[LazyConfig, Loss]:
        outcomes: dict[LazyConfig, list[Outcome]] = {config: [] for config in alive}
        for i, prompt in enumerate(order):
            if not alive:
                break
            self.on_prompt(text, f": {len(alive)} of {len(outcomes)} left", i, len(order))
            for config, outcome in zip(alive, self._outcomes(prompt, alive), strict=True):
                outcomes[config].append(outcome)
                self.fatal[prompt] += outcome.differs
            alive = [config for config in alive if sum(o.differs for o in outcomes[config]) <= allowed]
        return {config: Loss.of(found) for config, found in outcomes.items()}

    def _outcomes(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        key = sha256(prompt.text.encode()).hexdigest()[:16]
        keys = {config: (key, describe(config)) for config in configs}
        todo = [config for config in configs if keys[config] not in self.outcomes]
        if todo:
            for config, outcome in zip(todo, self.measure(prompt, todo), strict=True):
                if self.journal is not None:
                    self.journal.note(keys[config], outcome)
                self.outcomes[keys[config]] = outcome
        return [self.outcomes[keys[config]] for config in configs]


def describe(config: LazyConfig) -> str:
    """A configuration in a line: its schedule, and how tokens are scored."""
    return f"{config.schedule} window {config.window} pool {config.pool} {config.reduce}"
