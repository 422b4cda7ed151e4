"""OpenAI's completions: a text or tokens to go on with, in no chat template."""

from collections.abc import Iterator
from typing import Any

from ..progress import Progress
from .answer import Piece, complete_answer
from .api import Api, event
from .openai import MOST_ALTERNATIVES, common, refusal, usage, wishes
from .request import Body, Refusal, Request, number, refuse, shown

REFUSED = {
    "suffix": "this server writes no text between two others; leave it out",
    "echo": "this server does not repeat the prompt; leave it out",
}


def request(body: Body) -> Request:
    """What a body asks for.

    Raises:
        Refusal: it is malformed, or asks for what cannot be done.
    """
    refuse(body, REFUSED)
    logprobs = number(body, "logprobs", None, 0, MOST_ALTERNATIVES, int)
    return Request(_prompt(body.get("prompt")), logprobs=logprobs, **wishes(body))


def _prompt(given: Any) -> str | tuple[int, ...]:
    while isinstance(given, list) and len(given) == 1 and not isinstance(given[0], int):
        [given] = given
    if isinstance(given, str) and given:
        return given
    if isinstance(given, list) and given and all(type(token) is int for token in given):
        return tuple(given)
    raise Refusal(400, f"prompt: expected one text or the tokens of one, not empty, got {shown(given)}")


class CompletionReply:
    """A completion, complete or in chunks."""

    def __init__(self, model: str, request: Request, prompt_tokens: int):
        self._common, self._request = {**common("cmpl", model), "object": "text_completion"}, request
        self._said = 0  # letters that the log probabilities' offsets have come to

    def complete(self, pieces: list[Piece]) -> Body:
        answer, end = complete_answer(pieces)
        return {**self._chunk(answer), "usage": usage(end.usage)}

    def opening(self) -> Iterator[str]:
        yield from ()

    def progress(self, progress: Progress) -> Iterator[str]:
        yield event({**self._chunk(Piece()), "prompt_progress": progress.to_dict()})

    def piece(self, piece: Piece) -> Iterator[str]:
        if piece.text or piece.tokens or piece.end:
            yield event(self._chunk(piece))
        if piece.end:
            if self._request.include_usage:
                yield event({**self._common, "choices": [], "usage": usage(piece.end.usage)})
            yield "data: [DONE]\n\n"

    def _chunk(self, piece: Piece) -> Body:
        choice = {"index": 0, "text": piece.text, "finish_reason": piece.end and piece.end.reason}
        return {**self._common, "choices": [{**choice, "logprobs": self._logprobs(piece)}]}

    def _logprobs(self, piece: Piece) -> Body | None:
        if self._request.logprobs is None:
            return None
        offsets = []
        for token in piece.tokens:
            offsets.append(self._said)
            self._said += len(token.text)
        return {
            "tokens": [token.text for token in piece.tokens],
            "token_logprobs": [token.logprob for token in piece.tokens],
            "top_logprobs": [dict(token.top) for token in piece.tokens] if self._request.logprobs else None,
            "text_offset": offsets,
        }


API = Api(request, CompletionReply, refusal)
