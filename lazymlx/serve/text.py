"""`Text`: what a model says becomes pieces of an answer: stop texts end it, thoughts and tool calls are taken out."""

import mlx.core as mx
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..generation import LazyResponse
from .answer import Piece, Token
from .request import Chat, Request
from .stops import Stops
from .thoughts import Thoughts
from .tool_calls import ToolCalls


class Text:
    """Turns the responses to a request into pieces.

    Attributes:
        reason: that ended the answer: "stop", "length" or "tool_calls"; None while it goes on.
        stop: the stop text that did.
    """

    def __init__(self, request: Request, prompt: list[int], tokenizer: TokenizerWrapper):
        self._stops, self._alternatives, self._decode = Stops(request.stop), request.logprobs, tokenizer.decode
        self._calls, self._called, self._thoughts = None, False, None
        if isinstance(request.prompt, Chat) and tokenizer.has_thinking:
            begun = tokenizer.rfind_think_start(prompt) > tokenizer.rfind_think_end(prompt)
            self._thoughts = Thoughts(tokenizer.think_start or "", tokenizer.think_end or "", begun)
        if request.tools and tokenizer.tool_parser is not None:
            marks = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
            self._calls = ToolCalls(*marks, tokenizer.tool_parser, request.tools)
        self.reason: str | None = None
        self.stop: str | None = None

    def piece(self, response: LazyResponse) -> Piece:
        """What a response adds."""
        thought, text, last = "", response.text, response.finish_reason is not None
        if self._thoughts is not None:
            thought, text = self._thoughts.add(text, last)
        text, self.stop = self._stops.add(text, last)
        self.reason = response.finish_reason if self.stop is None else "stop"
        calls = []
        if self._calls is not None:
            text, calls = self._calls.add(text, self.reason is not None)
            self._called = self._called or bool(calls)
        if self._called and self.stop is None and self.reason == "stop":
            self.reason = "tool_calls"
        return Piece(text, thought, tuple(calls), self._tokens(response))

    def _tokens(self, response: LazyResponse) -> tuple[Token, ...]:
        if self._alternatives is None or response.finish_reason == "stop":
            return ()
        logprobs = np.array(response.logprobs.astype(mx.float32))
        best = np.argsort(-logprobs)[: self._alternatives].tolist()
        top = tuple((self._decode([token]), float(logprobs[token])) for token in best)
        return (Token(self._decode([response.token]), float(logprobs[response.token]), top),)
