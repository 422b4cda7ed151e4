"""`Session`: one document, many questions.

A session keeps two records and makes them agree. The transcript is a list of messages; the cache is a list of tokens.
Every turn renders the whole transcript by the model's chat template, keeps what the cache has in common with it, and
feeds the rest: normally the new question alone. Whatever interrupts a turn, both records go back to where it began.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import finalize

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..cache.undo import Mark, cut_back
from ..config import STEP_SIZE, LazyConfig
from ..ending import ENDING
from ..engine.model import Model
from ..errors import StateError
from ..generation import LazyResponse, check_request, stream_generate
from ..loading.warm import warm_once
from ..prefill import read
from ..progress import OnProgress
from ..stats import LazyStats
from ..wired import WIRED
from .saved import load_document, save_document
from .transcript import Message, Transcript, common_prefix, spelled, text_of
from .turns import Part, Undoable
from .use import Use


class Session:
    """A conversation about documents that are read once.

    `read` runs a document through the layers before the first cut, whatever will be asked; `ask` computes behind it
    what the question needs, and later questions bring back what they need instead (LazyLLM sec 3.2).

    One thread at a time uses a session; only `cancel` and `close` may be called from any. Several sessions may share
    a model.

        session = Session(model, tokenizer)
        session.read(Path("book.txt"))
        for response in session.ask("Who keeps the harbour key?"):
            print(response.text, end="")
    """

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        system: str | None = None,
        lazy: LazyConfig | None = None,
        *,
        max_memory: int | None = None,
        step_size: int = STEP_SIZE,
    ):
        """Begin a conversation.

        Args:
            system: the system prompt; it is fed once.
            lazy: what to leave behind; None is the model's own configuration.
            max_memory: bytes that the model and this session may take; None is what the device recommends.
            step_size: tokens computed at a time in prefill; bounds the peak memory, and how long a cancel takes.
        """
        self.model, self.tokenizer = model, tokenizer
        self.max_memory, self.step_size = max_memory, step_size
        self._cache = model.make_cache(lazy)[0]
        mx.eval(self._cache.state)  # what one thread leaves unevaluated, another cannot go on from
        self._tokens: list[int] = []  # in the cache, by position
        self._transcript = Transcript.of(system)
        self._turns: list[Undoable] = []
        self._part: Part | None = None
        self._ttft_s: float | None = None
        self._use = Use()
        warm_once(model)
        self._unwire = finalize(self, WIRED.hold())
        self._unwire.atexit = False

    @classmethod
    def open(cls, path: str | os.PathLike, model: Model, tokenizer: TokenizerWrapper, **limits: Any) -> "Session":
        """Go on with a session that was saved: with its system prompt, its configuration and all that was said.

        Args:
            limits: max_memory and step_size, as of any other session.

        Raises:
            DocumentError: the file cannot be read, is damaged, or was saved with another model.
        """
        cache, tokens, transcript = load_document(path, model)
        session = cls(model, tokenizer, None, cache.config, **limits)
        session._cache, session._tokens = cache, tokens
        session._transcript = transcript
        return session

    def save(self, path: str | os.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Write the session to a file; one that was there stays until the new one is complete.

        Args:
            about: plain values that go with it; `saved.about` reads them without a model.

        Raises:
            DocumentError: the file cannot be written.
        """
        with self._alone():
            save_document(path, self.model, self._cache, self._tokens, self._transcript, about or {})

    def read(
        self, text_or_path: str | os.PathLike, on_progress: OnProgress | None = None, *, resumable: bool = False
    ) -> None:
        """Read a document, or one more; the next question is asked about all that was read since the one before.

        Args:
            text_or_path: the text itself, or the `Path` of a document or a folder of them, see `read_document`.
            on_progress: called with how far it is, see `Progress`; returning False cancels.
            resumable: if it is cancelled, remember what was read; until anything else happens, reading the same
                document goes on from there.

        Raises:
            PromptError: there is nothing to read.
            Cancelled: by `cancel` or `on_progress`; the session is as it was before.
        """
        with self._alone():
            text = self.model.ranks.decided("document", lambda: text_of(text_or_path))
            transcript = self._transcript.with_document(text)
            new = self._align(transcript.certain_tokens(self.tokenizer))
            mark = Mark(self._cache)
            with self._undone_on_error(mark):
                rest = self._resumed(new)
                if rest:
                    keep = partial(self._keep_part, new) if resumable else None
                    watch = self._watched(on_progress)
                    read(self.model, rest, [self._cache], on_progress=watch, on_cancel=keep, **self._limits)
                self._settle(mark)
            self._record(Undoable(None, self._transcript, mark), transcript, new)

    def ask(
        self, question: str, max_tokens: int = 256, *, on_progress: OnProgress | None = None, **options: Any
    ) -> Generator[LazyResponse, None, None]:
        """Ask, and yield the answer piece by piece; nothing happens before the first one is wanted.

        If the caller stops listening, or `cancel` ends the answer (then the last response's `finish_reason` is
        "cancelled"), what was said so far stays in the transcript.

        Args:
            max_tokens: of the answer; -1 for no limit.
            on_progress: called with how far the prompt has been read, see `Progress`; returning False cancels.
            options: as in `stream_generate`: sampler, logits_processors, ...

        Raises:
            PromptError: there is no question, or the chat template refuses it.
            Cancelled: before the first token; the session is as it was before.
        """
        with self._alone():
            question = self.model.ranks.decided("question", lambda: question)
            transcript = self._transcript.with_question(question)
            new = self._align(transcript.tokens(self.tokenizer), at_least=1)
            mark, said = Mark(self._cache), list[int]()
            with self._undone_on_error(mark):
                watch = self._watched(on_progress)
                given = {"prompt_cache": [self._cache], "on_progress": watch, **self._limits, **options}
                responses = stream_generate(self.model, self.tokenizer, new, max_tokens, **given)
                try:
                    for response in self._until_cancelled(responses):
                        said.append(response.token)
                        self._ttft_s = response.ttft_s
                        yield response
                except GeneratorExit:  # the caller wants no more
                    pass
                finally:
                    responses.close()
                self._settle(mark)
            answered = transcript.with_answer(spelled(self.tokenizer, said))
            taken_in = self._cache.offset - mark.offset  # the last token of an answer may not have been needed
            self._record(Undoable(question, self._transcript, mark), answered, (new + said)[:taken_in])

    def retry(self, max_tokens: int = 256, **options: Any) -> Generator[LazyResponse, None, None]:
        """Forget the newest answer and ask its question again; the arguments are those of `ask`.

        Raises:
            StateError: the newest thing that happened is not a question.
            UsageError: of an option; the old answer stays.
            Cancelled: before the first token; the question is forgotten with its old answer then.
        """
        check_request(max_tokens, dict(options))
        if not self._turns or self._turns[-1].question is None:
            raise StateError("retry: there is no answer to replace; ask a question first")
        question = self.undo()
        assert question is not None
        yield from self.ask(question, max_tokens, **options)

    def undo(self) -> str | None:
        """Forget the newest question and its answer, or the newest document. The session is as it was before it.

        Returns:
            The question; None if it was a document.

        Raises:
            StateError: there is nothing to undo; a saved document's past is not saved with it.
        """
        with self._alone():
            if not self._turns:
                raise StateError("undo: nothing has been asked or read yet")
            turn, self._part = self._turns.pop(), None
            if turn.mark is not None:  # else the next turn will see how much of the cache can stay
                turn.mark.restore(self._cache)
                del self._tokens[turn.mark.offset :]
            self._transcript = turn.transcript
            return turn.question

    def fork(self) -> "Session":
        """An independent session with the same past; memory is shared until one of the two writes to it."""
        with self._alone():
            limits = {"max_memory": self.max_memory, "step_size": self.step_size}
            twin = Session(self.model, self.tokenizer, lazy=self._cache.config, **limits)
            twin._cache, twin._tokens, twin._turns = self._cache.fork(), list(self._tokens), list(self._turns)
            twin._transcript, twin._ttft_s = self._transcript, self._ttft_s
            return twin

    def cancel(self) -> None:
        """End a running `read` or `ask` within a chunk or a token. May be called from any thread."""
        self._use.cancel()

    def close(self) -> None:
        """Let go of everything, as soon as what is running has ended. May be called from any thread."""
        self._use.close(self._let_go)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what there is

    @property
    def messages(self) -> list[Message]:
        """The conversation, in the form of chat templates; documents are part of the questions asked about them."""
        return [dict(message) for message in self._transcript.messages]

    @property
    def tokens(self) -> list[int]:
        """What the session has taken in, by position."""
        return list(self._tokens)

    @property
    def config(self) -> LazyConfig:
        """What is left behind, and how it is chosen."""
        return self._cache.config

    @property
    def stats(self) -> LazyStats:
        """What the session has cost so far (waits for the device)."""
        with self._alone():
            return self._cache.stats(self._ttft_s)

    @property
    def nbytes(self) -> int:
        """Bytes held: keys and values, hidden states, and what undoing takes."""
        return self._cache.nbytes + sum(turn.mark.nbytes for turn in self._turns if turn.mark is not None)

    # how it is done

    @property
    def _limits(self) -> dict[str, Any]:
        return {"prefill_step_size": self.step_size, "max_memory": self.max_memory}

    def _alone(self) -> AbstractContextManager[None]:
        """Be the only one that uses the session."""
        return self._use.alone(self._let_go)

    def _let_go(self) -> None:
        self._cache = self.model.make_cache(self._cache.config)[0]
        self._tokens, self._turns, self._transcript, self._part = [], [], Transcript(), None
        mx.clear_cache()
        self._unwire()

    def _align(self, tokens: Sequence[int], at_least: int = 0) -> list[int]:
        """Cut the cache back to what it has in common with `tokens`. Returns the others, `at_least` so many.

        Normally the cache holds nothing else; but a chat template may render earlier turns differently, or an answer's
        text may be tokenised in another way than the model chose.
        """
        shared = common_prefix(self._tokens, tokens[: len(tokens) - at_least])
        if shared < len(self._tokens):
            cache = self._cache.fork()  # if this is interrupted, nothing happened
            cache.trim(len(self._tokens) - shared)
            mx.eval(cache.state)
            marks = cut_back([turn.mark for turn in self._turns], shared)
            self._turns = [turn._replace(mark=mark) for turn, mark in zip(self._turns, marks, strict=True)]
            self._cache, self._tokens, self._part = cache, self._tokens[:shared], None
        return list(tokens[shared:])

    def _resumed(self, tokens: list[int]) -> list[int]:
        """Go on with the part of these tokens that a cancelled reading has left. Returns the others."""
        part, self._part = self._part, None
        if part is None or not part.begins(tokens):
            return tokens
        self._cache = part.cache
        return tokens[len(part.tokens) :]

    @contextmanager
    def _undone_on_error(self, mark: Mark) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with ENDING.waits():
                mx.clear_cache()  # the device may be full
                mark.restore(self._cache)
            raise

    def _settle(self, mark: Mark) -> None:
        """Finish what is under way, so that any thread can go on from here, and let go of what can be had again."""
        with ENDING.waits():
            mx.eval(self._cache.state)
            mark.seal(self._cache)

    def _record(self, turn: Undoable, transcript: Transcript, tokens: list[int]) -> None:
        self._turns.append(turn)
        self._part = None
        self._tokens += tokens
        self._transcript = transcript

    def _until_cancelled(self, responses: Iterator[LazyResponse]) -> Iterator[LazyResponse]:
        for response in responses:
            if response.finish_reason is None and self._use.stopping:
                yield replace(response, finish_reason="cancelled")
                return
            yield response

    def _keep_part(self, tokens: list[int]) -> None:
        """Remember what was read of these tokens."""
        self._part = Part.of(self._cache, len(self._tokens), tokens)

    def _watched(self, on_progress: OnProgress | None) -> OnProgress:
        """`on_progress`, which also notices `cancel`."""
        return lambda progress: (on_progress is None or on_progress(progress) is not False) and not self._use.stopping
