"""`Answering`: one request after the other, each on the conversation that has computed most of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..engine.model import Model
from ..errors import Cancelled, UsageError
from ..generation import LazyResponse, stream_generate
from ..progress import Progress
from .answer import End, Piece, Token, Told, Usage
from .conversations import Conversations
from .encoding import Encoded
from .request import Request
from .stops import Stops
from .tool_calls import ToolCalls


@dataclass(frozen=True)
class Job:
    """A request in the queue; `tell` is called on the worker's thread with all that becomes known."""

    request: Request
    prompt: Encoded
    tell: Callable[[Told], None]
    cancelled: Event = field(default_factory=Event)
    since: float = field(default_factory=perf_counter)


class Answering:
    """Owns a model and its conversations."""

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        conversations: Conversations,
        step_size: int,
        max_memory: int | None = None,
    ):
        self._model, self._tokenizer, self._conversations = model, tokenizer, conversations
        self._limits = {"prefill_step_size": step_size, "max_memory": max_memory}

    def answer(self, job: Job) -> None:
        """Tell all pieces of an answer.

        Raises:
            Cancelled: the client went away.
            UsageError: it cannot be answered, for want of memory, say.
        """
        tokens = job.prompt.tokens
        conversation = self._conversations.take(tokens)
        cached, said, started = len(conversation.tokens), list[int](), perf_counter()
        if job.request.seed is not None:
            mx.random.seed(job.request.seed % 2**64)
        text = Text(job.request, self._tokenizer)
        responses = stream_generate(
            self._model,
            self._tokenizer,
            tokens[cached:],
            job.prompt.most,
            prompt_cache=[conversation.cache],
            **self._limits,
            sampler=make_sampler(job.request.temperature, job.request.top_p, top_k=job.request.top_k),
            logits_processors=make_logits_processors(**dict(job.request.penalties)),
            on_progress=lambda progress: self._progress(job, progress),
        )
        try:
            for response in responses:
                said.append(response.token)
                usage = Usage(len(tokens), cached, len(said), {})
                piece = text.piece(response, usage)
                if piece.end:
                    waited = started - job.since
                    lazy = {**response.lazy.to_dict(), "ttft_s": waited + response.ttft_s, "queued_s": waited}
                    usage.lazy.update(lazy)
                job.tell(piece)
                if piece.end or job.cancelled.is_set():
                    break
        except (Cancelled, UsageError):  # the cache is as it was; after anything else nobody knows, and it goes
            self._conversations.keep(conversation)
            raise
        finally:
            responses.close()
        conversation.took_in(tokens + said)
        self._conversations.keep(conversation)

    def _progress(self, job: Job, progress: Progress) -> bool:
        if job.request.progress:
            job.tell(progress)
        return not job.cancelled.is_set()


class Text:
    """Turns the responses to a request into pieces."""

    def __init__(self, request: Request, tokenizer: TokenizerWrapper):
        self._stops, self._alternatives, self._decode = Stops(request.stop), request.logprobs, tokenizer.decode
        self._calls, self._called = None, False
        if request.tools:
            marks = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
            self._calls = ToolCalls(*marks, tokenizer.tool_parser, request.tools)

    def piece(self, response: LazyResponse, usage: Usage) -> Piece:
        """What a response adds."""
        text, stop = self._stops.add(response.text, response.finish_reason is not None)
        reason = "stop" if stop is not None else response.finish_reason
        calls = []
        if self._calls is not None:
            text, calls = self._calls.add(text, reason is not None)
            self._called = self._called or bool(calls)
        if reason == "stop" and stop is None and self._called:
            reason = "tool_calls"
        end = None if reason is None else End(reason, usage, stop)
        return Piece(text, tuple(calls), self._tokens(response), end)

    def _tokens(self, response: LazyResponse) -> tuple[Token, ...]:
        if self._alternatives is None or response.finish_reason == "stop":
            return ()
        logprobs = np.array(response.logprobs.astype(mx.float32))
        best = np.argsort(-logprobs)[: self._alternatives].tolist()
        top = tuple((self._decode([token]), float(logprobs[token])) for token in best)
        return (Token(self._decode([response.token]), float(logprobs[response.token]), top),)
