"""`Ranks`: the processes that hold one model together, and this one's place among them.

All of them run the same program on the same tokens. Two things go between them. Arrays: each rank has some of the
heads, and what they contribute to a token is combined. Decisions: only rank 0 has the user before it, so what
depends on the user, a clock or a disk is decided there, and every rank learns it. One process is a group too: nothing
is sent then, and no operation is added.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

import mlx.core as mx
from jaxtyping import Float, Shaped

from .. import errors
from ..errors import LazyMLXError, RunError
from .channel import Channel

T = TypeVar("T")


class Ranks:
    """The group of one process, or of those that a launcher has started.

    Args:
        group: MLX's; None for one process.
        channel: between them.
    """

    def __init__(self, group: mx.distributed.Group | None = None, channel: Channel | None = None):
        self.group, self.channel = group, channel
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()

    # arrays: every rank has to come by with its own, of one shape, and all get the same back

    def sum(self, x: Shaped[mx.array, "..."]) -> Shaped[mx.array, "..."]:
        """The sum over all ranks."""
        return x if self.size == 1 else mx.distributed.all_sum(x, group=self.group)

    def each(self, x: Shaped[mx.array, "..."]) -> Shaped[mx.array, "R ..."]:
        """The arrays of all ranks, in their order."""
        return mx.distributed.all_gather(x[None], group=self.group)

    def mean(self, x: Float[mx.array, "..."]) -> Float[mx.array, "..."]:
        """The mean over all ranks, bit by bit the same on each: whatever way arrays go, they are added up here."""
        return x if self.size == 1 else self.each(x).mean(axis=0)

    def highest(self, x: Float[mx.array, "..."]) -> Float[mx.array, "..."]:
        """The maximum over all ranks."""
        return x if self.size == 1 else self.each(x).max(axis=0)

    def first(self, x: Shaped[mx.array, "..."]) -> Shaped[mx.array, "..."]:
        """Rank 0's array."""
        return self.sum(x if self.rank == 0 else mx.zeros_like(x))

    def concatenate(self, x: Shaped[mx.array, "..."], axis: int) -> Shaped[mx.array, "..."]:
        """The parts that the ranks have of an array, put together."""
        return x if self.size == 1 else mx.concatenate(list(self.each(x)), axis=axis)

    def part(self, x: Shaped[mx.array, "..."], axis: int, pieces: int = 1) -> Shaped[mx.array, "..."]:
        """This rank's part of an array; of each of its `pieces`, where several lie one behind the other."""
        if self.size == 1:
            return x
        shares = [mx.split(piece, self.size, axis)[self.rank] for piece in mx.split(x, pieces, axis)]
        return mx.contiguous(mx.concatenate(shares, axis) if pieces > 1 else shares[0])

    # decisions: every rank has to come to them in the same order

    def decided(self, what: str, decide: Callable[[], T]) -> T:
        """What rank 0 decides; only there `decide` is called. An error of ours is raised on all ranks.

        Args:
            what: names the decision; a rank that expects another one fails.
        """
        if self.channel is None:
            return decide()
        if self.rank:
            return _outcome(self.channel.receive(what))
        try:
            value = decide()
        except LazyMLXError as error:
            self.channel.send(what, {"error": type(error).__name__, "text": str(error)})
            raise
        self.channel.send(what, {"value": value})
        return value

    def gather(self, what: str, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value] if self.channel is None else self.channel.gather(what, value)

    def same(self, whose: str, facts: Mapping[str, object], error: type[LazyMLXError]) -> None:
        """Compare what each rank knows.

        Args:
            whose: facts these are; begins the message.

        Raises:
            LazyMLXError: this `error`, on all ranks, if they differ; the message says in what, and what each has.
        """
        every = self.gather(whose, dict(facts))
        for name in facts:
            if len({str(each[name]) for each in every}) > 1:
                values = self.by_rank(each[name] for each in every)
                raise error(f"{whose}: all ranks need the same {name}, and have {values}")

    def while_wanted(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Items for as long as rank 0 wants more of them. On another rank they just end."""
        return items if self.channel is None else self._while_wanted(items)

    def _while_wanted(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        with closing(items):
            for item in items:
                wanted = False
                try:
                    yield item
                    wanted = True
                finally:
                    go_on = self.decided("go on", lambda wanted=wanted: wanted)
                    if go_on and not wanted:
                        raise RunError("this rank wants no more of an answer that rank 0 goes on with")
                if not go_on:
                    return

    @property
    def hosts(self) -> Sequence[str]:
        """Where the ranks are."""
        return ["localhost"] if self.channel is None else self.channel.hosts

    def by_rank(self, values: Iterable[object]) -> str:
        """One value a rank, for people."""
        each = zip(range(self.size), self.hosts, values, strict=True)
        return ", ".join(f"rank {rank} on {host} {value}" for rank, host, value in each)


def _outcome(said: dict[str, Any]) -> Any:
    if "error" in said:
        raise getattr(errors, said["error"], RunError)(said["text"])
    return said["value"]


ALONE = Ranks()
