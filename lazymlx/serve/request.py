"""`Request`: what a client wants, whatever API it speaks; and `Refusal`, the response instead of an answer."""

from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]  # of JSON
ChatMessage = dict[str, Any]  # in the form of chat templates

MOST_TOKENS = 2**31


class Refusal(Exception):
    """A request that is not served, with the status code that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Chat:
    """A conversation, to be put into the form of the model's chat template.

    Attributes:
        tools: that may be called, in OpenAI's form.
        options: for the template, by name.
    """

    messages: tuple[ChatMessage, ...]
    tools: tuple[Body, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Request:
    """What to answer, and how.

    Attributes:
        prompt: a conversation; or a text or tokens to go on with.
        max_tokens: None: as many as the server allows.
        logprobs: how many alternatives to each token to report with its log probability; None: report nothing.
        penalties: for `make_logits_processors`.
        stream: piece by piece.
        include_usage: at the end of a stream.
        progress: report how far the prompt has been read.
        explain: make a page of what the answer was computed from.
    """

    prompt: Chat | str | tuple[int, ...]
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    penalties: tuple[tuple[str, Any], ...] = ()
    stream: bool = False
    include_usage: bool = False
    progress: bool = False
    explain: bool = False

    @property
    def tools(self) -> tuple[Body, ...]:
        """What the answer may call."""
        return self.prompt.tools if isinstance(self.prompt, Chat) else ()

    @property
    def title(self) -> str:
        """How the conversation begins, for a list of several."""
        if not isinstance(self.prompt, Chat):
            return "a completion"
        asked = (message["content"] for message in self.prompt.messages if message["role"] == "user")
        return " ".join(next(asked, "").split())[:60]


def number(body: Body, name: str, default: Any, least: int | float, most: int | float, kind: type = float) -> Any:
    """A number of a body; what is missing or null is the default.

    Raises:
        Refusal: it is none, or lies outside of its range.
    """
    value = body.get(name)
    if value is None:
        return default
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not least <= value <= most:
        noun = "whole number" if kind is int else "number"
        raise Refusal(400, f"{name}: expected a {noun} from {least:g} to {most:g}, got {shown(value)}")
    return kind(value)


def switch(body: Body, name: str) -> bool:
    """A truth value of a body; what is missing is false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, f"{name}: expected true or false, got {shown(value)}")
    return bool(value)


def mapping(body: Body, name: str) -> Body:
    """An object in a body; what is missing is empty."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refusal(400, f"{name}: expected an object, got {shown(value)}")
    return value or {}


def objects(body: Body, name: str) -> list[Body]:
    """A list of objects in a body; what is missing is empty."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Refusal(400, f"{name}: expected a list of objects, got {shown(value)}")
    return value


def stops(body: Body, name: str) -> tuple[str, ...]:
    """Texts that end an answer: one, or a list."""
    value = body.get(name) or []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise Refusal(400, f"{name}: expected a text or a list of texts, none of them empty, got {shown(value)}")
    return tuple(texts)


def refuse(body: Body, reasons: dict[str, str]) -> None:
    """Refuse what was asked for and cannot be done, rather than answer as if it had not been asked."""
    for name, reason in reasons.items():
        if body.get(name):
            raise Refusal(400, f"{name}: {reason}")


def shown(value: Any) -> str:
    """A value in a message; a long one is cut short."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
