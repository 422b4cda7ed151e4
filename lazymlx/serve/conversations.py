"""`Conversations`: clients send all that was said each time; what was computed of it is found by its beginning."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from ..cache.conversation import LazyCache
from ..engine.model import Model
from ..session.transcript import common_prefix


@dataclass(eq=False)
class Conversation:
    """A cache, and the tokens that it holds, by position."""

    cache: LazyCache
    tokens: list[int] = field(default_factory=list)

    def took_in(self, tokens: Sequence[int]) -> None:
        """The cache has gone on to `tokens`, of which the last may not have been needed."""
        self.tokens = list(tokens[: self.cache.offset])
        mx.eval(self.cache.state)


class Conversations:
    """The conversations used last, the newest at the end."""

    def __init__(self, model: Model, most: int):
        self._model, self._most = model, most
        self._kept: list[Conversation] = []

    def take(self, tokens: Sequence[int]) -> Conversation:
        """The conversation to go on with: it holds a beginning of `tokens`, and not all of them.

        One that continues is taken out. Of one that went another way a fork is made, so that both can go on.
        """
        usable = tokens[:-1]
        shared = [common_prefix(kept.tokens, usable) for kept in self._kept]
        longest = max(shared, default=0)
        if not longest:
            return Conversation(self._model.make_cache()[0])
        found = self._kept[shared.index(longest)]
        if longest == len(found.tokens):
            self._kept.remove(found)
            return found
        cache = found.cache.fork()
        cache.trim(len(found.tokens) - longest)
        mx.eval(cache.state)
        return Conversation(cache, found.tokens[:longest])

    def keep(self, conversation: Conversation) -> None:
        """Put a conversation back; the one that was not used for longest may go."""
        if conversation.tokens:
            self._kept.append(conversation)
            del self._kept[: -self._most]
