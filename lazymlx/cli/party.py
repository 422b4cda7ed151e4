"""A command as one of several ranks: rank 0 reads input and prints, the others compute the same and print nothing.

Nothing heavy is loaded where nobody has launched several.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, TypeVar

from .. import __version__
from ..errors import RunError
from ..ranks.launched import launched_rank, launched_size
from .terminal import deafen, say, silence

if TYPE_CHECKING:
    from ..ranks.group import Ranks

T = TypeVar("T")


class Party:
    """This process's part in a command.

    Attributes:
        ranks: once they have met; None if nobody has launched several.
    """

    def __init__(self) -> None:
        self.ranks: Ranks | None = None
        self._rank = launched_rank()
        self._voice: TextIO | None = None  # for the end alone

    def stand_back(self) -> None:
        """Be silent, and leave Ctrl-C to rank 0, unless this is it."""
        if self._rank:
            self._voice = os.fdopen(os.dup(2), "w", encoding="utf-8")
            silence(sys.stdout, sys.stderr)
            deafen()
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    @property
    def launched(self) -> bool:
        """Whether there are others."""
        return self._rank is not None

    def meet(self) -> "Ranks | None":
        """The ranks; None if there are no others.

        Raises:
            RunError: they cannot be reached.
        """
        if self.launched:
            from ..ranks.join import LONGEST_S, join

            say(f"rank 0 of {launched_size() or 'some'} waits for the others, {LONGEST_S} s at most")
            try:
                self.ranks = join(self._say, {"lazymlx": __version__})
            except RunError as error:
                if self._rank:  # rank 0 may not know of it
                    self._say(f"error: {error}")
                raise
        return self.ranks

    def end(self, code: int, reason: str = "") -> None:
        """Tell the others that this one ends; rank 0 says why, if it does not know already."""
        if self.ranks is not None and self.ranks.channel is not None:
            self.ranks.channel.end(code, reason)

    def fail(self, error: BaseException) -> None:
        """The same after what should not have happened; it may be another rank's end, whose reason comes first then."""
        if self.ranks is not None and self.ranks.channel is not None:
            self.ranks.channel.let_others_end()
            self.end(1, f"{type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        say(text, self._voice)


def decided(args: argparse.Namespace, what: str, decide: Callable[[], T]) -> T:
    """What rank 0 decides, see `Ranks.decided`."""
    return decide() if args.ranks is None else args.ranks.decided(what, decide)


def speaks(args: argparse.Namespace) -> bool:
    """Whether this process writes what the user asked for."""
    return args.ranks is None or args.ranks.rank == 0
