"""A bar moves between reports, and never ahead of them by more than the next one brings."""

import io
import re

import pytest
from rich.console import Console

from lazymlx.cli.bar import PrefillBar
from lazymlx.cli.guess import Guess
from lazymlx.progress import Progress


def test_between_reports_it_goes_on_at_the_rate_so_far() -> None:
    seconds = [0.0]
    guess = Guess(lambda: seconds[0])
    assert guess.now() == 0
    guess.report(Progress(total=10000, cache=1000, processed=1000, time_ms=0))
    seconds[0] = 3.0
    assert guess.now() == 1000  # nothing is known yet
    guess.report(Progress(10000, 1000, 3000, 4000))
    shown = [guess.now()]
    for _ in range(8):
        seconds[0] += 1
        shown.append(guess.now())
    assert shown[:4] == [3000, 3500, 4000, 4500] and shown[-1] == shown[-2] == 5000
    guess.report(Progress(10000, 1000, 3010, 5000))
    seconds[0] += 1000
    assert guess.now() == 5010  # reports are not evenly apart
    guess.report(Progress(10000, 1000, 9900, 20000))
    seconds[0] += 1000
    assert guess.now() == 9999  # not done before it is
    guess.report(Progress(10000, 1000, 10000, 20000))
    assert guess.now() == 10000


def test_the_bar_shows_it_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, seconds = io.StringIO(), [0.0]
    console = Console(file=screen, width=100)
    monkeypatch.setattr("lazymlx.cli.bar.Guess", lambda: Guess(lambda: seconds[0]))
    with PrefillBar("reading") as bar:
        bar.bar.live.console = console
        bar(Progress(1000, 0, 0, 0))
        bar(Progress(1000, 0, 400, 4000))
        seconds[0] += 2
        console.print(bar.bar.get_renderable())
    assert re.search(r"reading .* 600/1000\s+tokens .*\d:\d\d", screen.getvalue())
