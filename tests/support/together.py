"""Ranks as threads of one process: what each of them does is the real thing, but for the wires between them.

One thread runs at a time, and hands on where it waits for the others; so a test is as deterministic as without them.
"""

from collections.abc import Callable
from threading import Barrier as Meeting
from threading import Lock, Thread, local
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import pytest

from lazymlx.ranks.group import Ranks

T = TypeVar("T")
LONGEST_S = 60.0


class Place:
    """A rank's place: group and channel in one."""

    def __init__(self, number: int, table: "Table"):
        self.number, self.table = number, table
        self.arrays = 0  # how many were brought together
        self.hosts = ("one", "two", "three", "four")[: self.size()]

    def rank(self) -> int:
        return self.number

    def size(self) -> int:
        return len(self.table.given)

    def send(self, what: str, value: Any) -> None:
        assert self.table.exchange(self.number, what, (what, value))

    def receive(self, what: str) -> Any:
        said, value = self.table.exchange(self.number, what, None)[0]
        assert said == what, f"{what}, but rank 0 speaks of {said}"
        return value

    def gather(self, what: str, value: Any) -> list[Any]:
        return self.table.exchange(self.number, what, value)


class Table:
    """Where what each rank gives is laid down for all."""

    def __init__(self, size: int):
        self.given: list[Any] = [None] * size
        self.what: list[str] = [""] * size
        self.baton, self.all_here = Lock(), Meeting(size)

    def exchange(self, rank: int, what: str, value: Any) -> list[Any]:
        self.given[rank], self.what[rank] = value, what
        self.baton.release()
        try:
            self.all_here.wait(LONGEST_S)
            assert len({*self.what}) == 1, f"the ranks are not at one place: {self.what}"
            given = list(self.given)
            self.all_here.wait(LONGEST_S)
        finally:
            self.baton.acquire()
        return given


def together(size: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[Ranks], T]) -> list[T]:
    """What each of `size` ranks returns; the first error that one meets is raised."""
    table, found, errors = Table(size), [None] * size, list[BaseException]()
    here = local()

    def bring(x: mx.array, group: Place) -> list[np.ndarray]:
        assert group is here.place
        group.arrays += 1
        return group.table.exchange(group.number, "array", np.array(x))

    monkeypatch.setattr(mx.distributed, "all_sum", lambda x, group: mx.array(sum(bring(x, group)), x.dtype))
    monkeypatch.setattr(mx.distributed, "all_gather", lambda x, group: mx.array(np.concatenate(bring(x, group))))

    def rank(number: int) -> None:
        here.place = place = Place(number, table)
        with table.baton:
            try:
                found[number] = run(Ranks(place, place))
            except BaseException as error:
                errors.append(error)
                table.all_here.abort()

    threads = [Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
