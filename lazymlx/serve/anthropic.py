"""Anthropic's messages."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from ..progress import Progress
from .answer import Call, End, Piece, Usage, complete_answer
from .api import Api, event
from .request import (
    MOST_TOKENS,
    Body,
    Chat,
    ChatMessage,
    Refusal,
    Request,
    mapping,
    number,
    objects,
    shown,
    stops,
    switch,
)

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
UNSAID = ("thinking", "redacted_thinking")  # blocks of earlier answers that are nobody's to read again


def request(body: Body) -> Request:
    """What a body asks for.

    Raises:
        Refusal: it is malformed, or asks for what cannot be done.
    """
    return Request(
        chat(body),
        max_tokens=number(body, "max_tokens", None, 1, MOST_TOKENS, int),
        temperature=number(body, "temperature", 1.0, 0, 1),
        top_p=number(body, "top_p", 1.0, 0, 1),
        top_k=number(body, "top_k", 0, 0, MOST_TOKENS, int),
        stop=stops(body, "stop_sequences"),
        stream=switch(body, "stream"),
    )


def chat(body: Body) -> Chat:
    """The conversation of a body; that of a question how many tokens it has, too."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refusal(400, f"messages: expected a list with at least one message, got {shown(given)}")
    messages: list[ChatMessage] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _text(body["system"], "system")})
    for i, message in enumerate(given):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refusal(400, f"messages[{i}]: expected an object with a role, got {shown(message)}")
        messages += _messages(message["role"], message.get("content"), f"messages[{i}].content")
    thinking = mapping(body, "thinking").get("type", "disabled") != "disabled"
    return Chat(tuple(messages), _tools(body), (("enable_thinking", thinking),))


def _messages(role: str, content: Any, where: str) -> list[ChatMessage]:
    """A message as one or several of a chat template: there a tool's result has a message of its own."""
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Refusal(400, f"{where}: expected a text or a list of blocks, got {shown(content)}")
    results, texts, calls = list[ChatMessage](), list[Body](), list[Body]()
    for block in content:
        if block.get("type") == "tool_result":
            said = _text(block.get("content") or "", where)
            results.append({"role": "tool", "tool_call_id": str(block.get("tool_use_id")), "content": said})
        elif block.get("type") == "tool_use":
            function = {"name": str(block.get("name")), "arguments": block.get("input") or {}}
            calls.append({"id": str(block.get("id")), "type": "function", "function": function})
        elif block.get("type") not in UNSAID:
            texts.append(block)
    if texts or calls or not results:
        results.append({"role": role, "content": _text(texts, where), **({"tool_calls": calls} if calls else {})})
    return results


def _text(content: Any, where: str) -> str:
    """The text of blocks, a document's too."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"{where}: expected a text or a list of blocks, got {shown(content)}")
    return "\n".join(_block(block, where) for block in content)


def _block(block: Any, where: str) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return text
        case {"type": "document", "source": {"type": "content", "content": content}}:
            return _text(content, where)
    kind = block.get("type") if isinstance(block, dict) else block
    raise Refusal(400, f"{where}: this server reads text alone, got a block of type {shown(kind)}; leave it out")


def _tools(body: Body) -> tuple[Body, ...]:
    """In OpenAI's form, which chat templates want."""
    choice = body.get("tool_choice") or {"type": "auto"}
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind not in ("auto", "none"):
        raise Refusal(400, f"tool_choice: the model itself decides what it calls, got {shown(choice)}; leave it out")
    tools = []
    for i, tool in enumerate(objects(body, "tools")):
        if not isinstance(tool.get("name"), str) or not isinstance(tool.get("input_schema"), dict):
            raise Refusal(400, f"tools[{i}]: expected a name and an input_schema, got {shown(tool)}")
        function = {
            "name": tool["name"],
            "description": str(tool.get("description") or ""),
            "parameters": tool["input_schema"],
        }
        tools.append({"type": "function", "function": function})
    return () if kind == "none" else tuple(tools)


def refusal(refusal: Refusal) -> Body:
    """A refusal, as clients expect it."""
    kind = TYPES.get(refusal.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}


def usage(usage: Usage) -> Body:
    """What an answer has cost."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
        "lazymlx": usage.lazy,
    }


class AnthropicReply:
    """A message, complete or as events: each block of it is begun, gone on with and ended."""

    def __init__(self, model: str, request: Request, prompt_tokens: int):
        self._message: Body = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model}
        self._prompt_tokens, self._blocks, self._block = prompt_tokens, 0, ""  # the kind that is open

    def complete(self, pieces: list[Piece]) -> Body:
        answer, end = complete_answer(pieces)
        texts = [{"type": "text", "text": answer.text}] if answer.text or not answer.calls else []
        thoughts = [{"type": "thinking", "thinking": answer.thought, "signature": ""}] if answer.thought else []
        content = thoughts + texts + [{**_tool_use(call), "input": json.loads(call.arguments)} for call in answer.calls]
        return {**self._message, "content": content, **_ending(end), "usage": usage(end.usage)}

    def opening(self) -> Iterator[str]:
        """It is not known yet how much of the prompt is cached; the last event says it."""
        begun = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message = {**self._message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
        yield event({"type": "message_start", "message": message}, "message_start")

    def progress(self, progress: Progress) -> Iterator[str]:
        yield event({"type": "ping"}, "ping")

    def piece(self, piece: Piece) -> Iterator[str]:
        if piece.thought:
            yield from self._in_block("thinking", {"thinking": "", "signature": ""})
            yield self._event("content_block_delta", delta={"type": "thinking_delta", "thinking": piece.thought})
        if piece.text:
            yield from self._in_block("text", {"text": ""})
            yield self._event("content_block_delta", delta={"type": "text_delta", "text": piece.text})
        if piece.calls or piece.end:
            yield from self._in_block("", {})
        for call in piece.calls:
            yield self._event("content_block_start", content_block={**_tool_use(call), "input": {}})
            yield self._event("content_block_delta", delta={"type": "input_json_delta", "partial_json": call.arguments})
            yield self._ended()
        if piece.end:
            ending = {"type": "message_delta", "delta": _ending(piece.end), "usage": usage(piece.end.usage)}
            yield event(ending, "message_delta")
            yield event({"type": "message_stop"}, "message_stop")

    def _in_block(self, kind: str, empty: Body) -> Iterator[str]:
        """End the block that is open, and begin one of this kind, if it is not that one."""
        if self._block and self._block != kind:
            yield self._ended()
        if kind and self._block != kind:
            yield self._event("content_block_start", content_block={"type": kind, **empty})
        self._block = kind

    def _event(self, kind: str, **more: Any) -> str:
        return event({"type": kind, "index": self._blocks, **more}, kind)

    def _ended(self) -> str:
        ended = self._event("content_block_stop")
        self._blocks += 1
        return ended


def _tool_use(call: Call) -> Body:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def _ending(end: End) -> Body:
    reason = "stop_sequence" if end.stop is not None else REASONS.get(end.reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": end.stop}


API = Api(request, AnthropicReply, refusal, "error")
