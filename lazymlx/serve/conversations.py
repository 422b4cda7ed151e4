"""`Conversations`: clients send all that was said each time; what was computed of it is found by its beginning.

What is worth a place is what nobody else has: a title or a tag, asked about a conversation, adds a few tokens of its
own and goes before any document does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Int32

from ..cache.conversation import LazyCache
from ..engine.excerpt import Excerpt
from ..engine.model import Model
from .disk import Disk, common
from .runs import common_runs

SMALL = 512  # tokens that are computed again in no time
READ_AGAIN = 64  # first tokens of a moved text, at least: what comes first in a text is what the rest attends to most


@dataclass(eq=False)
class ServedConversation:
    """A cache, and the tokens that it holds, by position.

    Attributes:
        title: how it begins.
        computed: token-layers, as a share of the dense model's, as of its newest answer.
    """

    cache: LazyCache
    tokens: Int32[np.ndarray, " N"] = field(default_factory=lambda: as_array(()))
    title: str = ""
    computed: float | None = None

    @property
    def lent(self) -> Int32[np.ndarray, " M"]:
        """The tokens that another conversation may take over, by position; -1 for those that were generated."""
        held = self.tokens[: 0 if self.cache.lent is None else self.cache.lent.capacity].copy()
        for start, stop in self.cache.turn.generated:
            held[start:stop] = -1
        return held

    def took_in(self, tokens: Sequence[int]) -> None:
        """The cache has gone on to `tokens`, of which the last may not have been needed."""
        self.tokens = as_array(tokens[: self.cache.offset])
        mx.eval(self.cache.state)


class Conversations:
    """The conversations used last, the newest at the end.

    Attributes:
        kept: the conversations, for the worker's thread alone.
        listed: the same in plain values that any thread may look at.

    Args:
        most: to keep.
        disk: where others go.
        again: share that is read again of a text that was read in another place; the rest is taken over. None: all is
            read.
    """

    def __init__(self, model: Model, most: int, disk: Disk | None = None, again: float | None = None):
        self._model, self._most, self._disk, self._again = model, most, disk, again
        self.kept: list[ServedConversation] = []
        self.listed: list[dict[str, Any]] = []

    def take(self, tokens: Sequence[int], head: int = 0) -> ServedConversation:
        """The conversation to go on with: it holds a beginning of `tokens`, and not all of them.

        One that continues is taken out. Of one that went another way a fork is made, so that both can go on.

        Args:
            head: how many of the first tokens are never to be left behind.
        """
        conversation = self._beginning(as_array(tokens[:-1]))
        config = conversation.cache.config
        conversation.cache.config = replace(config, sink=max(self._model.lazy.sink, head))
        return conversation

    def _beginning(self, usable: Int32[np.ndarray, " N"]) -> ServedConversation:
        shared = [common(kept.tokens, usable) for kept in self.kept]
        longest = max(shared, default=0)
        if (stored := self._stored(usable, longest + SMALL)) is not None:
            return stored
        if not longest:
            return self._new()
        found = self.kept[shared.index(longest)]
        if longest == len(found.tokens):
            self.kept.remove(found)
            return found
        return _trimmed(replace(found, cache=found.cache.fork()), longest)

    def _new(self) -> ServedConversation:
        [cache] = self._model.make_cache()
        if self._again is not None:
            cache.lend()
        return ServedConversation(cache)

    def _stored(self, usable: Int32[np.ndarray, " N"], least: int) -> ServedConversation | None:
        """A conversation of the disk, if it has at least so many of the tokens."""
        if self._disk is None:
            return None
        path, shared = self._disk.find(usable)
        read = self._disk.read(path) if path is not None and shared >= least else None
        return None if read is None else _trimmed(ServedConversation(*read), shared)

    def moved(self, conversation: ServedConversation, tokens: Sequence[int]) -> list[tuple[int, Excerpt]]:
        """Texts among the tokens to come that this conversation, or another one, has read in another place: from which
        position on they can be taken over. The last tokens are not among them, since they ask."""
        if self._again is None:
            return []
        cache, moved = conversation.cache, list[tuple[int, Excerpt]]()
        sources = [each for each in (conversation, *reversed(self.kept)) if each.cache.edges[1] == cache.edges[1]]
        usable = as_array(tokens[cache.offset : -max(cache.config.window, cache.config.lookahead, READ_AGAIN)])
        for at, number, start, length in common_runs(usable, [each.lent for each in sources]):
            again = max(READ_AGAIN, ceil(self._again * length))
            excerpt = Excerpt(sources[number].cache, start + again, start + length)
            if again < length:
                moved.append((cache.offset + at + again, excerpt))
        return moved

    def keep(self, conversation: ServedConversation) -> None:
        """Put a conversation back; `shed` makes sure that there are not too many."""
        if len(conversation.tokens):
            self.kept.append(conversation)
        self.listed = [
            {"title": kept.title, "tokens": len(kept.tokens), "bytes": kept.cache.nbytes, "computed": kept.computed}
            for kept in reversed(self.kept)
        ]

    def shed(self) -> None:
        """Let go of those that are too many, which may take a while where they go to the disk."""
        while len(self.kept) > self._most:
            self._let_go()

    def shrink(self, most_bytes: int) -> int:
        """Let go of some until the others take no more. Returns what they take."""
        while self.kept and self.nbytes > most_bytes:
            self._let_go()
        return self.nbytes

    @property
    def nbytes(self) -> int:
        return sum(kept.cache.nbytes for kept in self.kept)

    def _let_go(self) -> None:
        small = next((kept for kept in self.kept if self._own(kept) < SMALL), None)
        gone = small or self.kept[0]
        self.kept.remove(gone)
        if small is None and self._disk is not None:
            self._disk.keep(gone.cache, gone.tokens)

    def _own(self, conversation: ServedConversation) -> int:
        """Tokens that no other conversation has."""
        others = (common(kept.tokens, conversation.tokens) for kept in self.kept if kept is not conversation)
        return len(conversation.tokens) - max(others, default=0)


def _trimmed(conversation: ServedConversation, length: int) -> ServedConversation:
    """With no more than the first tokens."""
    cache = conversation.cache
    cache.trim(len(conversation.tokens) - length)
    mx.eval(cache.state)
    return replace(conversation, tokens=conversation.tokens[:length])


def as_array(tokens: Sequence[int]) -> Int32[np.ndarray, " N"]:
    return np.array(tokens, np.int32)
