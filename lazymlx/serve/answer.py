"""What the worker sends of an answer: its pieces, and what it has cost."""

from dataclasses import dataclass
from typing import Any

from ..progress import Progress
from .request import Refusal


@dataclass(frozen=True)
class Call:
    """A tool that the model wants called; `arguments` are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Token:
    """A token with its log probability, and those of the likeliest ones in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """What an answer has cost.

    Attributes:
        cached_tokens: of the prompt's, computed for an earlier request.
        lazy: of `LazyStats`, and the time to the first token since the request came.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    lazy: dict[str, Any]


@dataclass(frozen=True)
class End:
    """How an answer ended: "stop", "length" or "tool_calls"; `stop` is the stop text that ended it."""

    reason: str
    usage: Usage
    stop: str | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of an answer; the last one has an `end`. A `thought` is what the model says to itself."""

    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()
    tokens: tuple[Token, ...] = ()
    end: End | None = None


Update = Piece | Progress | Refusal


def complete_answer(pieces: list[Piece]) -> tuple[Piece, End]:
    """All pieces as one, and the end."""
    end = pieces[-1].end
    assert end is not None
    calls = tuple(call for piece in pieces for call in piece.calls)
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    text, thought = ("".join(getattr(piece, name) for piece in pieces) for name in ("text", "thought"))
    return Piece(text, thought, calls, tokens, end), end
