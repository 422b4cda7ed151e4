"""OpenAI's chat completions: a body becomes a `Request`, and pieces of an answer become bodies."""

import time
from typing import Any
from uuid import uuid4

from .request import Body, Refusal, Request, messages_of, number, refuse, stops, switch
from .worker import Piece

REFUSED = {
    "tools": "this server calls no tools; leave it out",
    "functions": "this server calls no functions; leave it out",
    "logprobs": "this server reports no log probabilities; leave it out",
}
TYPES = {401: "authentication_error", 404: "not_found_error", 500: "server_error", 503: "server_error"}


def request(body: Body) -> Request:
    """What a body asks for.

    Raises:
        Refusal: it is malformed, or asks for what cannot be done.
    """
    refuse(body, REFUSED)
    if number(body, "n", 1, 1, 128, int) != 1:
        raise Refusal(400, "n: this server gives one answer to a request; leave it out")
    form = body.get("response_format") or {"type": "text"}
    if form != {"type": "text"}:
        raise Refusal(400, f"response_format: this server promises no format but text, got {form!r}; leave it out")
    shorter = number(body, "max_tokens", None, 1, 2**31, int)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refusal(400, f"stream_options: expected an object, got {options!r}")
    return Request(
        messages=messages_of(body),
        max_tokens=number(body, "max_completion_tokens", shorter, 1, 2**31, int),
        temperature=number(body, "temperature", 1.0, 0, 2),
        top_p=number(body, "top_p", 1.0, 0, 1),
        stop=stops(body, "stop"),
        seed=number(body, "seed", None, 0, 2**63, int),
        stream=switch(body, "stream"),
        include_usage=switch(options, "include_usage"),
    )


def usage(piece: Piece) -> Body:
    """What an answer has cost so far."""
    return {
        "prompt_tokens": piece.prompt_tokens,
        "completion_tokens": piece.completion_tokens,
        "total_tokens": piece.prompt_tokens + piece.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": piece.cached_tokens},
    }


def error(refusal: Refusal) -> Body:
    """A refusal, as clients expect it."""
    kind = TYPES.get(refusal.status, "invalid_request_error")
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": None}}


class Reply:
    """The bodies of one answer, which share its name and time."""

    def __init__(self, model: str):
        self._common = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, last: Piece) -> Body:
        """The answer that is not streamed."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": last.finish_reason, "logprobs": None}
        return {**self._common, "object": "chat.completion", "choices": [choice], "usage": usage(last)}

    def opening(self) -> Body:
        """The first chunk of a stream."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def chunk(self, piece: Piece) -> Body:
        """A piece of a stream."""
        return self._chunk({"content": piece.text} if piece.text else {}, piece.finish_reason)

    def closing(self, last: Piece) -> Body:
        """The chunk with the usage, for who asks for it."""
        return {**self._common, "object": "chat.completion.chunk", "choices": [], "usage": usage(last)}

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> Body:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._common, "object": "chat.completion.chunk", "choices": [choice]}
