"""`Request`: what a client wants, whatever API it speaks; and `Refusal`, what it is told instead of an answer."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, str]  # role and content
Body = dict[str, Any]


class Refusal(Exception):
    """A request that is not served, with the status code that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Request:
    """A conversation to answer, and how."""

    messages: list[Message]
    max_tokens: int | None = None  # None: as many as the model has positions for
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False


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
        raise Refusal(400, f"{name}: expected a {noun} from {least:g} to {most:g}, got {value!r}")
    return kind(value)


def switch(body: Body, name: str) -> bool:
    """A truth value of a body; what is missing is false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, f"{name}: expected true or false, got {value!r}")
    return bool(value)


def stops(body: Body, name: str) -> tuple[str, ...]:
    """Texts that end an answer: one, or a list."""
    value = body.get(name) or []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise Refusal(400, f"{name}: expected a text or a list of texts, none of them empty, got {value!r}")
    return tuple(texts)


def text_of(content: Any, where: str) -> str:
    """The text of a message: a string, or a list of parts that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"{where}: expected a text or a list of parts, got {content!r}")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, f"{where}: this server reads text alone, got a part of type {kind!r}; leave it out")
    return "\n".join(part["text"] for part in content)


def messages_of(body: Body) -> list[Message]:
    """The messages of a body."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refusal(400, f"messages: expected a list with at least one message, got {given!r}")
    found = []
    for i, message in enumerate(given):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refusal(400, f"messages[{i}]: expected an object with a role, got {message!r}")
        role = "system" if message["role"] == "developer" else message["role"]
        found.append({"role": role, "content": text_of(message.get("content"), f"messages[{i}].content")})
    return found


def refuse(body: Body, reasons: dict[str, str]) -> None:
    """Refuse what was asked for and cannot be done, rather than answer as if it had not been asked."""
    for name, reason in reasons.items():
        if body.get(name):
            raise Refusal(400, f"{name}: {reason}")
