"""`Api`: what differs between the interfaces that clients speak. A body becomes a `Request`, pieces become bodies."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..progress import Progress
from .answer import Piece
from .request import Body, Refusal, Request


class Reply(Protocol):
    """The bodies of one answer. What is streamed are events, see `event`."""

    def complete(self, pieces: list[Piece]) -> Body:
        """The answer that is not streamed."""
        ...

    def opening(self) -> Iterator[str]:
        """Begins a stream, before anything is known."""
        ...

    def progress(self, progress: Progress) -> Iterator[str]:
        """How far the prompt has been read."""
        ...

    def piece(self, piece: Piece) -> Iterator[str]:
        """Goes on with a stream, or ends it."""
        ...


@dataclass(frozen=True)
class Api:
    """An interface: the request in a body; the reply to a request, given the model's name and the prompt's tokens; and
    the body of a refusal, which as an event in a stream has a name."""

    request: Callable[[Body], Request]
    reply: Callable[[str, Request, int], Reply]
    refusal: Callable[[Refusal], Body]
    refused: str | None = None


def event(body: Body, name: str | None = None) -> str:
    """A server-sent event."""
    data = f"data: {json.dumps(body)}\n\n"
    return data if name is None else f"event: {name}\n{data}"
