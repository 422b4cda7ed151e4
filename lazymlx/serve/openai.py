"""What OpenAI's interfaces have in common: how an answer is asked for, what it costs, how it is refused."""

import time
from typing import Any
from uuid import uuid4

from .answer import Usage
from .request import MOST_TOKENS, Body, Refusal, mapping, number, shown, stops, switch

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
MOST_ALTERNATIVES = 20


def wishes(body: Body) -> dict[str, Any]:
    """The fields of `Request` that do not depend on the kind of prompt.

    Raises:
        Refusal: one is malformed, or asks for what cannot be done.
    """
    for name in ("n", "best_of"):
        if number(body, name, 1, 1, 128, int) != 1:
            raise Refusal(400, f"{name}: this server gives one answer to a request; leave it out")
    shorter = number(body, "max_tokens", None, 1, MOST_TOKENS, int)
    return {
        "max_tokens": number(body, "max_completion_tokens", shorter, 1, MOST_TOKENS, int),
        "temperature": number(body, "temperature", 1.0, 0, 2),
        "top_p": number(body, "top_p", 1.0, 0, 1),
        "top_k": number(body, "top_k", 0, 0, MOST_TOKENS, int),
        "stop": stops(body, "stop"),
        "seed": number(body, "seed", None, -(2**63), 2**64 - 1, int),
        "penalties": penalties(body),
        "stream": switch(body, "stream"),
        "include_usage": switch(mapping(body, "stream_options"), "include_usage"),
        "progress": switch(body, "return_progress"),
        "explain": switch(body, "explain"),
    }


def penalties(body: Body) -> tuple[tuple[str, Any], ...]:
    """What is added to the logits."""
    found = [(name, number(body, name, 0.0, -2, 2)) for name in ("presence_penalty", "frequency_penalty")]
    bias = mapping(body, "logit_bias")
    try:
        found.append(("logit_bias", {int(token): float(value) for token, value in bias.items()}))
    except (TypeError, ValueError):
        raise Refusal(400, f"logit_bias: expected numbers by token, got {shown(bias)}") from None
    return tuple((name, value) for name, value in found if value)


def usage(usage: Usage) -> Body:
    """What an answer has cost."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "lazymlx": usage.lazy,
    }


def refusal(refusal: Refusal) -> Body:
    """A refusal, as clients expect it."""
    kind = TYPES.get(refusal.status, "invalid_request_error")
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": None}}


def common(prefix: str, model: str) -> Body:
    """What the bodies of one answer share."""
    return {"id": f"{prefix}-{uuid4().hex}", "created": int(time.time()), "model": model}
