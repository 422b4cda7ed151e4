"""The time that a long job will take yet, where stderr is no terminal."""

from lazymlx.cli.pace import Pace


class Clock:
    """A time that stands still until it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def paced() -> tuple[Pace, Clock, list[str]]:
    clock = Clock()
    said: list[str] = []
    return Pace(said.append, clock), clock, said


def test_nothing_is_said_within_half_a_minute_and_of_what_is_done() -> None:
    pace, clock, said = paced()
    for done in range(1, 30):
        clock.now += 1
        pace(done, 100)
    clock.now += 60
    pace(100, 100)
    assert not said


def test_the_rest_takes_as_long_as_the_pace_since_the_last_line_says() -> None:
    pace, clock, said = paced()
    clock.now += 40
    pace(4, 12)
    clock.now += 10
    pace(5, 12)
    clock.now += 50
    pace(6, 12)
    assert said == ["4 of 12 done, about 80 seconds left", "6 of 12 done, about 3 minutes left"]


def test_what_an_earlier_run_has_done_counts_for_nothing() -> None:
    pace, clock, said = paced()
    pace(500, 1000)  # of an earlier run, at once
    clock.now += 30
    pace(501, 1000)
    assert said == ["501 of 1000 done, about 4.2 hours left"]


def test_another_job_has_a_pace_of_its_own() -> None:
    pace, clock, said = paced()
    clock.now += 29
    pace.restart()
    clock.now += 20
    pace(1, 9)
    clock.now += 20
    pace(2, 9)
    assert said == ["2 of 9 done, about 2 minutes left"]
