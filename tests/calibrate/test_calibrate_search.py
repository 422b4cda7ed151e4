"""The search: against a planted truth about which layers need which tokens, without any model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lazymlx.calibrate.kinds import Prompt
from lazymlx.calibrate.loss import Loss, Outcome, quantile
from lazymlx.calibrate.search import Search, SearchResult
from lazymlx.calibrate.trials import Book, Trials, describe, open_journal
from lazymlx.config import LazyConfig
from lazymlx.errors import UsageError
from lazymlx.schedule import Cut, Schedule

LAYERS = 12
BASE = LazyConfig((), min_tokens=0)
PROMPTS = tuple(Prompt("stub", f"prompt {i}") for i in range(40))


def profile(cuts: Sequence[Cut]) -> np.ndarray:
    """The share of tokens in each layer."""
    shares = np.ones(LAYERS)
    for layer, keep in cuts:
        shares[layer:] = keep
    return shares


def speedup(cuts: Sequence[Cut]) -> float:
    return float(LAYERS / profile(cuts).sum())


class Truth:
    """A model of which we know what it needs: in layer i, the share `needs[i]` of the tokens, on the hard prompts."""

    def __init__(self, needs: Sequence[float], hard: int = len(PROMPTS), graded: bool = False):
        self.needs, self.hard, self.graded = np.array(needs), set(PROMPTS[-hard:]), graded
        self.calls: list[tuple[str, str]] = []

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        self.calls += [(prompt.text, describe(config)) for config in configs]
        return [self.outcome(prompt, config) for config in configs]

    def outcome(self, prompt: Prompt, config: LazyConfig) -> Outcome:
        lacking = float(np.maximum(self.needs - profile(config.cuts), 0).sum())
        lost = lacking > 1e-9 and prompt in self.hard
        return Outcome(lost * (lacking if self.graded else 1.0), not lost, not lost)


def needs(*steps: tuple[int, float]) -> np.ndarray:
    return profile([Cut(layer, keep) for layer, keep in steps])


def search(truth: Truth, max_loss: float = 0.01) -> Search:
    return Search(LAYERS, range(1, LAYERS), speedup, Trials(truth, PROMPTS, max_loss), BASE)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (needs((8, 0.1)), "8:0.1"),
        (needs((3, 0.25)), "3:0.25"),
        (needs((4, 0.5), (8, 0.05)), "4:0.5,8:0.05"),
        (needs((2, 0.75), (5, 0.35), (9, 0.05)), "2:0.75,5:0.35,9:0.05"),
        (needs((1, 0.03)), "1:0.03"),
    ],
)
def test_the_planted_schedule_is_found(truth: np.ndarray, expected: str) -> None:
    found = search(Truth(truth)).fastest()
    assert str(found.config.schedule) == expected
    assert found.loss.nats == 0 and len(found.loss.outcomes) == len(PROMPTS)


def test_nothing_is_cut_where_the_scan_says_so() -> None:
    found = search(Truth(needs((8, 0.1)))).fastest()
    assert [layer for layer, loss in found.scan.items() if loss.nats] == [1, 2, 3, 4, 5, 6, 7]
    assert all(len(found.scan[layer].outcomes) == len(PROMPTS) for layer in range(8, LAYERS))


def test_a_model_that_needs_everything_is_left_alone() -> None:
    found = search(Truth(needs())).fastest()
    assert found.config.cuts == ()


@pytest.mark.parametrize(
    ("max_loss", "expected"), [(0.0, "8:0.1"), (0.049, "8:0.1"), (0.05, "1:0.03"), (0.5, "1:0.03")]
)
def test_the_limit_on_the_loss_is_kept_to_the_prompt(max_loss: float, expected: str) -> None:
    """Two of forty prompts need what the others do not."""
    found = search(Truth(needs((8, 0.1)), hard=2), max_loss).fastest()
    assert str(found.config.schedule) == expected
    assert found.loss.nats <= max_loss


def test_bad_candidates_leave_after_few_prompts() -> None:
    truth = Truth(needs((8, 0.1)))
    search(truth).fastest()
    wrong = [text for text, config in truth.calls if config.startswith("3:0.25 ")]
    assert len(wrong) == 1
    assert len(truth.calls) == len(set(truth.calls)), "an outcome was measured twice"


@pytest.mark.parametrize("target", [1.3, 1.6, 2.5])
def test_a_speed_is_reached_at_the_least_loss(target: float) -> None:
    """Up to the planted schedule's own speed nothing is lost; beyond it, less than with the cut in a wrong layer."""
    truth = Truth(needs((4, 0.5), (8, 0.05)), graded=True)
    found: SearchResult = search(truth).safest(target)
    assert speedup(found.config.cuts) >= target
    single = Cut(2, 0.3)
    assert found.loss.nats <= truth.outcome(PROMPTS[0], LazyConfig((single,))).rise
    if target < speedup([Cut(4, 0.5)]):
        assert found.loss.nats == 0


def test_a_speed_that_no_cut_reaches_is_refused() -> None:
    """As in a model whose windows allow late cuts alone."""
    trials = Trials(Truth(needs((8, 0.1))), PROMPTS, 0.01)
    late = Search(LAYERS, range(1, LAYERS), speedup, trials, BASE, fits=lambda cuts: cuts[0].layer > LAYERS - 2)
    with pytest.raises(UsageError, match="no cut that this model can have reaches 3"):
        late.safest(3.0)
    assert late.safest(1.05).config.cuts


@pytest.mark.parametrize(
    ("truth", "limit", "expected"),
    [
        (needs((4, 0.75)), 1.14, "7:0.75"),  # layers whose quarter is beyond the limit are looked at all the same
        (needs((3, 0.25)), 1.5, "6:0.35"),
        (needs((8, 0.1)), 10.0, "8:0.1"),
    ],
)
def test_nothing_beyond_a_limit_is_taken_and_little_less_is_found(truth, limit: float, expected: str) -> None:
    found = Search(LAYERS, range(1, LAYERS), speedup, Trials(Truth(truth), PROMPTS, 0.01), BASE, limit=limit).fastest()
    fast = speedup(found.config.cuts)
    assert 0.97 * speedup(Schedule.of(expected).cuts) <= fast <= limit and found.loss.nats == 0


# what was measured is kept


def journal(path: Path, resume: bool = False, model: str = "m") -> Book:
    return Book(open_journal(path, {"model": model}, resume), {"model": model})


def run(truth: Truth, kept: Book) -> SearchResult:
    return Search(LAYERS, range(1, LAYERS), speedup, Trials(truth, PROMPTS, 0.01, kept), BASE).fastest()


class Interrupted(Truth):
    """Ctrl-C after some prompts."""

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        if len(self.calls) > 150:
            raise KeyboardInterrupt
        return super().__call__(prompt, configs)


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    path, truth = tmp_path / "kept.jsonl", needs((4, 0.5), (8, 0.05))
    first, second, whole = Interrupted(truth), Truth(truth), Truth(truth)
    with pytest.raises(KeyboardInterrupt):
        run(first, journal(path))
    with path.open("a") as file:
        file.write('{"prompt": "cut sho')
    resumed = run(second, journal(path, resume=True))
    assert resumed == run(whole, journal(tmp_path / "other.jsonl"))
    assert len(first.calls) > 100 and not set(first.calls) & set(second.calls)
    assert sorted(first.calls + second.calls) == sorted(whole.calls)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_an_unfinished_calibration_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    run(Truth(needs()), journal(path))
    with pytest.raises(UsageError, match="--resume"):
        journal(path)
    with pytest.raises(UsageError, match="another model"):
        journal(path, resume=True, model="other")
    path.write_text("not json\n")
    with pytest.raises(UsageError, match="remove it to go on"):
        journal(path, resume=True)


def test_nothing_is_kept_of_a_calibration_that_measured_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    journal(path)
    assert not path.exists()
    journal(path)


def loss(**kinds: Sequence[float]) -> Loss:
    return Loss({kind: tuple(Outcome(r, r == 0, r == 0) for r in rises) for kind, rises in kinds.items()})


def test_losses_say_how_sure_they_are_of_each_kind() -> None:
    """Student's t, from its tables; a single prompt speaks for nothing."""
    assert quantile(9, 0.05) == pytest.approx(1.833, abs=0.002)
    assert quantile(29, 0.025) == pytest.approx(2.045, abs=0.002)
    found = loss(prose=[0.0, 0.2] * 5, table=[0.0] * 10)
    spread = np.std([0.0, 0.2] * 5, ddof=1) / np.sqrt(10)
    assert found.at_most("prose") == pytest.approx(0.1 + 1.833 * spread, abs=1e-3)
    assert found.at_most("prose", 3) > found.at_most("prose") and found.at_most("table") == 0
    assert loss(prose=[0.0]).at_most("prose") == float("inf")


def test_losses_say_how_many_prompts_would_show_it() -> None:
    few = loss(prose=[0.0, 0.15] * 3)
    needed = few.needed(0.1, 1)
    assert few.at_most("prose") > 0.1 > loss(prose=[0.0, 0.15] * (needed // 2)).at_most("prose")


def test_losses_name_the_kind_that_lost_most() -> None:
    found = loss(prose=[0.0, 0.0], table=[1.0, 2.0])
    assert found.worst == "table" and found.nats == 0.75
    assert str(found) == (
        "0.750 nats a token, most for table (1.500); first tokens agree 50%, same answers 50%, 4 prompts"
    )
