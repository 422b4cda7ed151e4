"""What a session remembers beside its two records: turns that can be undone, and a document that was read in part."""

from typing import NamedTuple

import mlx.core as mx

from ..cache.conversation import LazyCache
from ..cache.undo import Mark
from .transcript import Transcript


class Undoable(NamedTuple):
    """A question with its answer, or a document; and what it takes to undo it."""

    question: str | None
    transcript: Transcript  # before it
    mark: Mark | None  # the cache before it; None if the cache was cut back further since


class Part(NamedTuple):
    """The beginning of a document whose reading was cancelled: its tokens, and a cache that has taken them in."""

    tokens: list[int]
    cache: LazyCache

    @classmethod
    def of(cls, cache: LazyCache, start: int, tokens: list[int]) -> "Part":
        """What `cache` has of the document's tokens, which begin at position `start` (waits for the device)."""
        twin = cache.fork()
        twin.expected = 0
        mx.eval(twin.state)
        return cls(tokens[: twin.offset - start], twin)

    def begins(self, tokens: list[int]) -> bool:
        return tokens[: len(self.tokens)] == self.tokens
