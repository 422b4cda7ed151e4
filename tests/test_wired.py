"""The wired limit is raised while anybody wants it, and given back on every way out."""

import gc

import pytest
from talking import DOCUMENT, session

from lazymlx import wired
from lazymlx.session import session as sessions
from lazymlx.wired import WiredLimit


class Limit:
    """A process's limit."""

    def __init__(self) -> None:
        self.now = 7

    def set(self, limit: int) -> int:
        before, self.now = self.now, limit
        return before


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Of a Mac."""
    limit = Limit()
    monkeypatch.setattr(sessions, "WIRED", WiredLimit(lambda: 100, limit.set))
    return limit


def test_the_last_one_gives_it_back_and_only_once() -> None:
    limit = Limit()
    wired = WiredLimit(lambda: 100, limit.set)
    first, second = wired.hold(), wired.hold()
    with wired.held():
        first()
        first()
        assert limit.now == 100
    assert limit.now == 100
    second()
    assert limit.now == 7
    with pytest.raises(ZeroDivisionError), wired.held():
        assert limit.now == 100
        raise ZeroDivisionError
    assert limit.now == 7


def test_nothing_is_wired_where_there_is_no_metal() -> None:
    limit = Limit()
    with WiredLimit(lambda: None, limit.set).held():
        assert limit.now == 7
    assert wired.recommended() is None


def test_a_session_holds_it_for_its_life(limit: Limit) -> None:
    with session() as s:
        twin = s.fork()
        s.read(DOCUMENT)
        assert limit.now == 100
    assert limit.now == 100
    twin.close()
    twin.close()
    assert limit.now == 7


def test_a_session_that_is_forgotten_gives_it_back(limit: Limit) -> None:
    s = session()
    answer = s.ask("who?", 5)
    next(answer)
    del answer, s
    gc.collect()
    assert limit.now == 7


def test_a_session_that_is_closed_in_an_answer_gives_it_back_afterwards(limit: Limit) -> None:
    s = session()
    for _ in s.ask("who?", 5):
        s.close()
        assert limit.now == 100
    assert limit.now == 7
