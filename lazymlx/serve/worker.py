"""`Worker`: the one thread that computes. Requests wait in a queue, first in, first out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Queue
from threading import Event, Thread

import mlx.core as mx
from jinja2 import TemplateError
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..engine.model import Model
from ..errors import Cancelled, UsageError
from ..generation import stream_generate
from ..session.transcript import Transcript
from .conversations import Conversations
from .request import Refusal, Request
from .stops import Stops


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, and what the answer has cost so far."""

    text: str
    finish_reason: str | None  # "stop" or "length" of the last piece
    prompt_tokens: int
    cached_tokens: int  # of the prompt's, computed for an earlier request
    completion_tokens: int


@dataclass(frozen=True)
class Job:
    """A request in the queue; `tell` is called on the worker's thread with each piece, or with the refusal."""

    request: Request
    tell: Callable[[Piece | Refusal], None]
    cancelled: Event = field(default_factory=Event)


class Worker:
    """Owns a model and its conversations."""

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        most_conversations: int,
        step_size: int,
        max_memory: int | None = None,
    ):
        self._model, self._tokenizer = model, tokenizer
        self._limits = {"prefill_step_size": step_size, "max_memory": max_memory}
        self._conversations = Conversations(model, most_conversations)
        self._jobs: Queue[Job | None] = Queue()
        self._thread = Thread(target=self._work, name="lazymlx-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests will be answered."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a request."""
        self._jobs.put(job)

    def close(self) -> None:
        """End after what is queued."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.cancelled.is_set():
                self._serve(job)

    def _serve(self, job: Job) -> None:
        try:
            for piece in self._answer(job):
                job.tell(piece)
        except Cancelled:
            pass  # nobody listens
        except Refusal as refusal:
            job.tell(refusal)
        except UsageError as error:
            job.tell(Refusal(400, str(error)))
        except Exception as error:  # a bug in one answer must not end all later ones
            job.tell(Refusal(500, f"the answer failed: {type(error).__name__}"))

    def _answer(self, job: Job) -> Iterator[Piece]:
        request = job.request
        tokens = self._encode(request)
        conversation = self._conversations.take(tokens)
        cached = len(conversation.tokens)
        if request.seed is not None:
            mx.random.seed(request.seed)
        said, stops = list[int](), Stops(request.stop)
        responses = stream_generate(
            self._model,
            self._tokenizer,
            tokens[cached:],
            self._limit(request, len(tokens)),
            prompt_cache=[conversation.cache],
            **self._limits,
            sampler=make_sampler(request.temperature, request.top_p),
            on_progress=lambda _: not job.cancelled.is_set(),
        )
        try:
            for response in responses:
                said.append(response.token)
                text, stopped = stops.add(response.text, response.finish_reason is not None)
                reason = "stop" if stopped else response.finish_reason
                yield Piece(text, reason, len(tokens), cached, len(said))
                if reason is not None or job.cancelled.is_set():
                    break
        except (Cancelled, UsageError):  # the cache is as it was; after anything else nobody knows, and it goes
            self._conversations.keep(conversation)
            raise
        finally:
            responses.close()
        conversation.took_in(tokens + said)
        self._conversations.keep(conversation)

    def _encode(self, request: Request) -> list[int]:
        try:
            return Transcript(tuple(request.messages)).tokens(self._tokenizer)
        except TemplateError as error:
            raise Refusal(400, f"messages: the model's chat template refuses them: {error}") from None

    def _limit(self, request: Request, prompt: int) -> int:
        most = self._model.max_positions
        if most is None:
            return request.max_tokens or -1
        if prompt >= most:
            raise Refusal(400, f"messages: {prompt} tokens, but the model has {most} positions; send fewer")
        return min(request.max_tokens or most, most - prompt)
