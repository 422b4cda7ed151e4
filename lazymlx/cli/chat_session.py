"""`ChatSession`: a session as a chat shows it. Importing this loads MLX.

Answers go to stdout; all that is said about them goes to stderr. It knows nothing of commands, nor where messages come
from.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from rich.console import Console

from ..config import LazyConfig
from ..documents import read_document
from ..engine.model import Model
from ..errors import Cancelled, StateError, UsageError
from ..explain import Trace, page
from ..files import write_text
from ..generation import LazyResponse
from ..progress import Progress
from ..session.saved import about, is_document
from ..session.session import Session
from ..stats import LazyStats
from ..units import megabytes
from . import chat_settings, options
from .answering import check_drawing, drawing, open_model
from .bar import PrefillBar
from .ctrl_c import CtrlC
from .documents import as_source, path_of, sources_of
from .notes import beyond_positions, notes
from .origin import ReadDocument, documents_of, origin
from .outputs import check_document, check_page
from .party import decided, speaks
from .prompt import count_tokens
from .statistics import computed
from .terminal import confirm
from .type_ahead import kept_for_the_prompt
from .typeset import answer_text

PAGE = "explain.html"
NEW = "a new conversation, all that was read and said is forgotten"


class Asked(NamedTuple):
    """A question; and how its answer was computed, for /explain, if there was one."""

    question: str
    trace: Trace | None
    stats: LazyStats


class ChatSession:
    """A session, the documents that were read in it, and how both are shown."""

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        args: argparse.Namespace,
        uncalibrated: LazyConfig | None,
        *,
        interactive: bool,
    ):
        """Begin a conversation as the flags want it; `model.lazy` is what they say of what is left behind.

        Args:
            uncalibrated: the same as it was before it became the model's, if no schedule is stored for that.
            interactive: whether somebody sits there; then the first Ctrl-C ends an answer, and not the chat.
        """
        self.model, self.tokenizer, self.args, self.interactive = model, tokenizer, args, interactive
        self.uncalibrated = uncalibrated
        self.said: set[str] = set()  # notes that need no repetition
        self.warned_of_length = False
        self.session = self._begun(self.config_for(args.lazy))
        self.opened: list[ReadDocument] = []  # what the session began with
        self.turns: list[ReadDocument | Asked] = []  # documents and questions since, as they can be undone
        self.saved: list[ReadDocument | Asked] = []  # the turns when the session was last saved
        self.own: set[Path] = set()  # files that this conversation was saved to or opened from

    # what happens

    def ask(self, question: str) -> None:
        """Answer a question, and say what that cost."""
        self._warn_of_length(question)
        response, trace, revived = None, Trace(self.session.tokens), self.session.stats.revived
        mx.reset_peak_memory()
        with self._watching("reading") as (ctrl_c, watch):
            given = {"on_progress": watch, "on_step": trace.note, **drawing(self.tokenizer, self.args)}
            with closing(self.session.ask(question, self.args.max_tokens, **given)) as responses, answer_text() as said:
                for response in responses:
                    said.add(response.text)
                    if ctrl_c.wished:
                        break
        self.turns.append(Asked(question, None if response is None else trace, self.session.stats))
        if response is not None:
            note(self._cost(response, revived))
        self._warn(self.session.stats.prompt_end)

    def retry(self) -> None:
        """Answer the newest question once more."""
        if not self.turns or isinstance(self.turns[-1], ReadDocument):
            raise StateError("retry: there is no answer to replace; ask a question first")
        question = self.turns[-1].question
        self.session.undo()
        self.turns.pop()
        note(f"asking again: {_shortened(question)}")
        try:
            self.ask(question)
        except Cancelled:
            note("the old answer is forgotten, and its question too")
            raise

    def undo(self) -> None:
        """Forget the newest question or document."""
        self.session.undo()
        forgotten = self.turns.pop()
        note(f"forgot {forgotten.name if isinstance(forgotten, ReadDocument) else _shortened(forgotten.question)}")

    def read(self, words: str) -> None:
        """Read files, folders or addresses, for the questions to come."""
        for source in decided(self.args, "sources", lambda: [str(each) for each in sources_of(words)]):
            self._read(as_source(source))

    def _read(self, source: Path | str) -> None:
        name = source if isinstance(source, str) else source.name or str(source)
        text, before = decided(self.args, "read", lambda: read_document(source)), self.session.stats.context_tokens
        self._warn_of_length(text)
        try:
            with self._watching(f"reading {name}") as (_, watch):
                self.session.read(text, watch, resumable=True)
        except Cancelled as stopped:
            raise Cancelled(f"{stopped}; /read {source} goes on from there") from None
        tokens = self.session.stats.context_tokens
        self.turns.append(ReadDocument(name, tokens - before))
        note(f"read {name}: {tokens - before} tokens, {megabytes(self.session.nbytes)} held")
        self._warn(tokens)

    def save(self, words: str) -> None:
        """Write the session to a file. One of another conversation is replaced if the user says so."""
        path = path_of(words)
        mine = self.args.overwrite or path.resolve() in self.own
        decided(self.args, "place", lambda: check_document(path, "save", is_document, mine))
        self.session.save(path, origin(self.args, self.documents))
        self.own.add(path.resolve())
        self.saved = list(self.turns)
        if speaks(self.args):
            note(f"saved {self.session.stats.context_tokens} tokens to {path}, {megabytes(path.stat().st_size)}")

    def explain(self, words: str) -> None:
        """Write a page that shows what the newest answer was computed from."""
        asked = next((turn for turn in reversed(self.turns) if isinstance(turn, Asked) and turn.trace), None)
        if asked is None or asked.trace is None:
            raise StateError("explain: there is no answer to explain; ask a question first")
        path = path_of(words or PAGE)
        decided(self.args, "place", lambda: check_page(path, "explain"))
        text = page(asked.trace.history(), self.tokenizer, asked.stats, asked.question)
        decided(self.args, "page", lambda: write_text(path, text, "explain"))
        note(f"how deep each token was computed: {path}")

    def open(self, words: str) -> None:
        """Go on with a saved session instead of this one."""
        path = path_of(words)
        self._may_forget()
        session = Session.open(path, self.model, self.tokenizer, **self._limits)
        self._change(session)
        tokens = session.stats.context_tokens
        listed = documents_of(decided(self.args, "about", lambda: about(path)))
        self.opened = listed or [ReadDocument(path.name, tokens)]
        self.own.add(path.resolve())
        note(f"opened {path.name}: {tokens} tokens; {described(session.config)}")

    def restart(self, config: LazyConfig | None = None) -> None:
        """Forget everything; begin anew with this configuration, or the one as before."""
        if config is not None:
            self._may_forget()
        self._change(self._begun(config or self.session.config))

    def set(self, words: str) -> None:
        """Change how answers are generated; or the system prompt, which begins a new conversation."""
        args = chat_settings.changed(self.args, words)
        check_drawing(self.model, args)
        if chat_settings.is_system_prompt(words):
            self._may_forget()
        if args.seed != self.args.seed:
            mx.random.seed(args.seed)
        self.args = args
        note(f"{chat_settings.setting(args, words)} from now on")
        if chat_settings.is_system_prompt(words):
            self.restart()
            note(f"{NEW}, with this system prompt")

    def use(self, name: str) -> None:
        """Go on with another model, in a new conversation. The one before stays if that one cannot be had."""
        if self.args.ranks is not None:
            raise UsageError("model: several ranks stay with the one that they began with; start the chat anew")
        args = argparse.Namespace(**{**vars(self.args), "model": name, "adapter_path": None})
        lazy = options.lazy_config(args, "auto")
        self._may_forget()
        self.model, self.tokenizer, calibrated = open_model(args, name, lazy)
        self.args, self.uncalibrated = args, None if calibrated else lazy
        self.said.clear()
        self._change(self._begun(self.config_for(args.lazy)))
        note(f"{NEW}, with {name}: {described(self.session.config)}")

    def close(self) -> None:
        """Let go of everything."""
        self.session.close()

    # what there is

    @property
    def documents(self) -> list[ReadDocument]:
        """What was read so far."""
        return [*self.opened, *(turn for turn in self.turns if isinstance(turn, ReadDocument))]

    @property
    def unsaved(self) -> bool:
        """Whether something was read or said that no file has."""
        return self.turns != self.saved

    def config_for(self, words: str) -> LazyConfig:
        """The configuration that "auto", "on", "off" or a schedule stands for."""
        if words == "off":
            return replace(self.model.lazy, schedule=())
        if words == "auto":
            return self.model.lazy
        if words == "on":
            return replace(self.model.lazy, min_tokens=0)
        return self.model.resolve(replace(self.model.lazy, schedule=words))

    def statistics(self) -> Iterator[str]:
        """All that is known about what this conversation has cost, in lines."""
        stats = self.session.stats
        yield f"Conversation: {stats.context_tokens} tokens, {len(self.session.messages)} messages"
        yield f"Configuration: {described(self.session.config)}"
        if stats.context_tokens:
            yield f"Computed: {computed(stats)}"
        yield (
            f"Memory: {megabytes(stats.kv_bytes)} of keys and values, {megabytes(stats.aux_bytes)} of tokens left "
            f"behind; {megabytes(self.session.nbytes)} with what /undo takes; peak {mx.get_peak_memory() / 1e9:.3f} GB"
        )

    # how it is done

    @property
    def _limits(self) -> dict[str, Any]:
        return {"max_memory": self.args.max_memory, "step_size": options.step_size(self.args)}

    def _begun(self, config: LazyConfig) -> Session:
        return Session(self.model, self.tokenizer, self.args.system_prompt, config, **self._limits)

    def _may_forget(self) -> None:
        """Before this conversation makes way for another one: whoever sits there is asked, if no file has it.

        Raises:
            Cancelled: it is to stay.
        """
        question = "this conversation is not saved; forget it?"
        if not decided(self.args, "forget", lambda: not (self.interactive and self.unsaved) or confirm(question)):
            raise Cancelled("the conversation goes on")

    def _change(self, session: Session) -> None:
        self.session.close()
        self.session, self.opened, self.turns, self.saved = session, [], [], []
        self.own = set()
        self.warned_of_length = False

    def _cost(self, response: LazyResponse, revived: int) -> str:
        """One line about an answer."""
        stats = self.session.stats
        total = stats.prompt_end
        kept = ", ".join(f"{count}/{total}" for count in stats.kept) or f"{total}/{total}"
        parts = [
            f"kept {kept}",
            f"revived {max(stats.revived - revived, 0)}",
            f"TTFT {response.ttft_s:.2f} s",
            f"{response.generation_tps:.1f} tok/s",
            f"{megabytes(self.session.nbytes)} held, peak {mx.get_peak_memory() / 1e9:.2f} GB",
        ]
        if response.finish_reason is None:
            parts.append("stopped")
        if response.finish_reason == "length":
            parts.append(f"cut off after {response.generation_tokens} tokens (--max-tokens)")
        return " · ".join(parts)

    @contextmanager
    def _watching(self, what: str) -> Iterator[tuple[CtrlC, Callable[[Progress], bool]]]:
        """A bar, and a handler of Ctrl-C, while something is read."""
        with kept_for_the_prompt(), CtrlC() as ctrl_c, PrefillBar(what) as bar:
            ctrl_c.patient = self.interactive

            def watch(progress: Progress) -> bool:
                bar(progress)
                return not ctrl_c.wished

            yield ctrl_c, watch

    def _warn_of_length(self, text: str) -> None:
        """Before a text is read: with it, there is more than the model can take. Once a conversation is enough."""
        tokens = self.session.stats.context_tokens + count_tokens(text, self.tokenizer)
        beyond = beyond_positions(tokens, self.model.max_positions)
        if beyond and not self.warned_of_length:
            note(beyond)
            self.warned_of_length = True

    def _warn(self, tokens: int) -> None:
        used = self.session.config
        default = used.schedule == self.model.lazy.schedule
        for text in notes(tokens, self.model, self.uncalibrated if default else None, used, of_length=False):
            if text not in self.said:
                note(text)
            self.said.add(text)


def note(text: str) -> None:
    """A line about the conversation, dim where that can be shown."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print(text, style="dim", soft_wrap=not console.is_terminal)


def described(config: LazyConfig) -> str:
    """What a configuration does."""
    if not config.cuts:
        return "everything is computed"
    least = f", from {config.min_tokens} tokens on" if config.min_tokens else ""
    return f"tokens are left behind by the schedule {config.schedule}{least}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
