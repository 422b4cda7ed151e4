"""OpenAI's chat completions."""

from collections.abc import Iterator
from typing import Any

from ..progress import Progress
from .answer import Call, Piece, Token, complete_answer
from .api import Api, event
from .messages import messages_of, options_of, tools_of
from .openai import MOST_ALTERNATIVES, common, refusal, usage, wishes
from .request import Body, Chat, Refusal, Request, number, shown, switch


def request(body: Body) -> Request:
    """What a body asks for.

    Raises:
        Refusal: it is malformed, or asks for what cannot be done.
    """
    form = body.get("response_format") or {"type": "text"}
    if form != {"type": "text"}:
        raise Refusal(400, f"response_format: this server promises no format but text, got {shown(form)}; leave it out")
    prompt = Chat(messages_of(body), tools_of(body), options_of(body))
    alternatives = number(body, "top_logprobs", 0, 0, MOST_ALTERNATIVES, int)
    return Request(prompt, logprobs=alternatives if switch(body, "logprobs") else None, **wishes(body))


class ChatReply:
    """A chat completion, complete or in chunks."""

    def __init__(self, model: str, request: Request, prompt_tokens: int):
        self._common, self._request, self._calls = common("chatcmpl", model), request, 0

    def complete(self, pieces: list[Piece]) -> Body:
        answer, end = complete_answer(pieces)
        message: Body = {"role": "assistant", "content": answer.text or None if answer.calls else answer.text}
        if answer.thought:
            message["reasoning"] = answer.thought
        if answer.calls:
            message["tool_calls"] = [_call(call) for call in answer.calls]
        choice = {"index": 0, "message": message, "finish_reason": end.reason, "logprobs": self._logprobs(answer)}
        return {**self._common, "object": "chat.completion", "choices": [choice], "usage": usage(end.usage)}

    def opening(self) -> Iterator[str]:
        yield self._chunk({"role": "assistant", "content": ""})

    def progress(self, progress: Progress) -> Iterator[str]:
        yield self._chunk({}, prompt_progress=progress.to_dict())

    def piece(self, piece: Piece) -> Iterator[str]:
        delta: Body = {"content": piece.text} if piece.text else {}
        if piece.thought:
            delta["reasoning"] = piece.thought
        if piece.calls:
            delta["tool_calls"] = [{"index": self._calls + i, **_call(call)} for i, call in enumerate(piece.calls)]
            self._calls += len(piece.calls)
        if delta or piece.tokens or piece.end:
            yield self._chunk(delta, piece)
        if piece.end:
            if self._request.include_usage:
                yield self._event([], usage=usage(piece.end.usage))
            yield "data: [DONE]\n\n"

    def _chunk(self, delta: Body, piece: Piece | None = None, **more: Any) -> str:
        piece = piece or Piece()
        choice = {"index": 0, "delta": delta, "finish_reason": piece.end and piece.end.reason}
        choice["logprobs"] = self._logprobs(piece) if piece.tokens else None
        return self._event([choice], **more)

    def _event(self, choices: list[Body], **more: Any) -> str:
        return event({**self._common, "object": "chat.completion.chunk", "choices": choices, **more})

    def _logprobs(self, piece: Piece) -> Body | None:
        if self._request.logprobs is None:
            return None
        return {"content": [_token(t) for t in piece.tokens], "refusal": None}


def _call(call: Call) -> Body:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _token(token: Token) -> Body:
    return {**_alternative(token.text, token.logprob), "top_logprobs": [_alternative(*pair) for pair in token.top]}


def _alternative(text: str, logprob: float) -> Body:
    part = "\N{REPLACEMENT CHARACTER}" in text  # of a letter, whose bytes the text does not have
    return {"token": text, "logprob": logprob, "bytes": None if part else list(text.encode())}


API = Api(request, ChatReply, refusal)
