"""`Answering`: one request after the other, each on the conversation that has computed most of it."""

from collections import deque
from collections.abc import Generator
from dataclasses import replace
from secrets import token_hex
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..cache.conversation import LazyCache
from ..costs.memory import ensure_fits, memory_limit, memory_to_go_on
from ..engine.excerpt import take_over
from ..engine.model import Model
from ..errors import Cancelled, UsageError
from ..explain import Trace, page
from ..generation import LazyResponse, stream_generate
from ..prefill import planned_work, read
from .answer import End, Piece, Usage
from .conversations import Conversations, ServedConversation
from .job import Job
from .job_progress import JobProgress
from .text import Text

PART = 1024  # tokens, about, that are read at a time: as many are lost if the client goes away


class Answering:
    """Owns a model and its conversations.

    Attributes:
        explained: the page of the newest answer for which one was asked, behind its name, that nobody can guess.

    Args:
        step_size: prompt tokens computed at a time.
        max_memory: bytes for the model, all conversations and the prompt under way; None: what the device recommends.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        conversations: Conversations,
        step_size: int,
        max_memory: int | None = None,
    ):
        self._model, self._tokenizer, self.conversations = model, tokenizer, conversations
        self._step_size, self._max_memory = step_size, max_memory
        self.explained = "", ""
        self._part = step_size * max(1, PART // step_size)

    def answer(self, job: Job) -> None:
        """Send all pieces of an answer. If it is cancelled, what was read stays for when it is asked for again.

        Raises:
            Cancelled: the client went away.
            UsageError: it cannot be answered, for want of memory, say.
        """
        conversation = self.conversations.take(job.prompt.tokens, job.prompt.head)
        conversation.title = job.request.title
        try:
            last = self._answer(job, conversation)
        except (Cancelled, UsageError):  # the cache is as it was; after anything else nobody knows, and it goes
            self.conversations.keep(conversation)
            raise
        else:
            self.conversations.keep(conversation)
            job.send(last)  # only now: what comes next finds the conversation there
        finally:
            self.conversations.shed()

    def _answer(self, job: Job, conversation: ServedConversation) -> Piece:
        """All pieces but the last."""
        cached, queued_s, first_s = len(conversation.tokens), perf_counter() - job.since, None
        prompt, said, piece = job.prompt.tokens, list[int](), Piece()
        text = Text(job.request, prompt, self._tokenizer)
        options, taken = self._read(job, conversation)
        trace = Trace(prompt[: conversation.cache.offset])
        responses = self._responses(
            job, conversation.cache, on_step=trace.note if job.request.explain else None, **options
        )
        try:
            for response in responses:
                first_s = first_s or perf_counter() - job.since
                said.append(response.token)
                piece = text.piece(response)
                if text.reason is not None:
                    costs = response.lazy
                    conversation.computed = costs.computed_fraction
                    lazy = {**costs.to_dict(), "ttft_s": first_s, "queued_s": queued_s}
                    usage = Usage(len(prompt), cached + taken, len(said), lazy)
                    piece = replace(piece, end=End(text.reason, usage, text.stop))
                    if job.request.explain:
                        self.explained = token_hex(16), page(trace.history(), self._tokenizer, costs)
                        lazy["explained"] = self.explained[0]
                if piece.end or job.cancelled.is_set():
                    break
                job.send(piece)
        finally:
            responses.close()
        conversation.took_in(prompt + said)
        if not piece.end:
            raise Cancelled(f"cancelled after {len(said)} tokens of the answer")
        return piece

    def _read(self, job: Job, conversation: ServedConversation) -> tuple[dict[str, Any], int]:
        """Read the beginning of a prompt part by part: of each that was read, the conversation knows.

        Returns options for what is left, and how many tokens were taken over from another place.
        """
        tokens, cache = job.prompt.tokens, conversation.cache
        new = len(tokens) - cache.offset
        limits = {"prefill_step_size": self._step_size, "max_memory": self._room(cache, new)}
        progress = JobProgress(job, cache.offset, planned_work(cache, new))
        moved = deque(self.conversations.moved(conversation, tokens))
        taken = sum(excerpt.length for _, excerpt in moved)
        while moved or len(tokens) - cache.offset > self._part:
            upto = min(cache.offset + self._part, moved[0][0] if moved else len(tokens))
            if upto == cache.offset:
                take_over(self._model, cache, moved.popleft()[1])
            else:
                part = tokens[cache.offset : upto]
                read(self._model, part, [cache], on_progress=progress.part_read, **limits)
            conversation.took_in(tokens)
        progress.has_read(cache.offset)
        return {**limits, "on_progress": progress.answering}, taken

    def _responses(self, job: Job, cache: LazyCache, **options: Any) -> Generator[LazyResponse, None, None]:
        request = job.request
        if request.seed is not None:
            mx.random.seed(request.seed % 2**64)
        return stream_generate(
            self._model,
            self._tokenizer,
            job.prompt.tokens[cache.offset :],
            job.prompt.most,
            prompt_cache=[cache],
            sampler=make_sampler(request.temperature, request.top_p, top_k=request.top_k),
            logits_processors=make_logits_processors(**dict(request.penalties)),
            **options,
        )

    def _room(self, cache: LazyCache, new: int) -> int | None:
        """Make room for so many more tokens. Returns the bytes that the model and their conversation may take.

        Raises:
            TooLargeError: they would need more, even if they were alone.
        """
        limit = memory_limit() if self._max_memory is None else self._max_memory
        if limit is None:
            return None
        limit = min(self._model.ranks.gather("limit", limit))
        need = memory_to_go_on(self._model, cache, new, cache.config, step_size=self._step_size)
        others = self.conversations.shrink(limit - need.total)
        most = None if self._max_memory is None else limit - others
        ensure_fits(self._model, cache, new, step_size=self._step_size, max_memory=most)
        return most
