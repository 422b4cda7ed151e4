"""The app without a window: one thread owns the model and the session, and talks to the window through two queues.

Whatever touches MLX happens on that thread, loading included, because MLX's streams belong to the thread that made
them. A window calls `open`, `ask` and `stop`, which return at once, and on a timer it takes what has happened
since from `events`; a toolkit's functions must be called from its own thread alone, so nothing is called back.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from events import Answered, Asked, Busy, Event, Failed, Idle, Loaded, Opened, Piece, Reading, Stopped

import lazymlx  # it loads MLX when it is first used: on the worker, with the window on the screen already
from lazymlx.demo import MODEL
from lazymlx.errors import Cancelled, LazyMLXError, StateError

if TYPE_CHECKING:
    from lazymlx import Progress, Session

STEP_SIZE = 256  # tokens computed at a time: how often the bar moves, and how soon a stop is heard
TAKE_DOWN_S = 0.2 if sys.version_info < (3, 13) else 0.0


class Controller:
    """The window's side: hands commands over, and takes events out."""

    def __init__(self, model: str, *, max_tokens: int = 512, max_memory: int | None = None):
        """Begin to load a model.

        Args:
            model: a folder or a Hub name.
            max_tokens: of an answer.
            max_memory: bytes that may be taken; None is what the device recommends.
        """
        self._inbox: SimpleQueue[tuple[int, Callable[..., None], tuple] | None] = SimpleQueue()
        self._outbox: SimpleQueue[Event] = SimpleQueue()
        self._given = self._stopped = 0  # commands are numbered, and a stop is for all those given before it
        self._worker = Worker(model, max_tokens, max_memory, self._outbox.put)
        self._thread = Thread(target=self._work, name="lazymlx")
        self._thread.start()

    def open(self, path: Path) -> None:
        """Read a document: text, Markdown, PDF, or a .lazydoc that was read before."""
        self._give(self._worker.open, path)

    def ask(self, question: str) -> None:
        """Answer a question about the document."""
        self._give(self._worker.ask, question)

    def stop(self) -> None:
        """Give up what is under way, within `STEP_SIZE` tokens of a document or one of an answer."""
        self._stopped = self._given

    def close(self) -> None:
        """Stop, let go of everything, and wait for that; while a model is being loaded, until it is."""
        self.stop()
        self._inbox.put(None)
        self._thread.join()
        # Before Python 3.13 `join` returns while the thread is still being taken down, and what MLX kept for it needs
        # Python for that: it aborts the process if Python is being taken down itself by then.
        time.sleep(TAKE_DOWN_S)

    def events(self) -> Iterator[Event]:
        """What has happened since the last call; never waits."""
        try:
            while True:
                yield self._outbox.get_nowait()
        except Empty:
            return

    def _give(self, command: Callable[..., None], *args: Any) -> None:
        self._given += 1
        self._inbox.put((self._given, command, args))

    def _work(self) -> None:
        self._worker.obey(self._worker.load)
        for number, command, args in iter(self._inbox.get, None):
            self._worker.wanted = lambda number=number: number > self._stopped
            self._worker.obey(command, *args)
        self._worker.close()


class Worker:
    """The thread's side: does one thing at a time, and tells of it."""

    def __init__(self, model: str, max_tokens: int, max_memory: int | None, tell: Callable[[Event], None]):
        self.name, self.max_tokens, self.max_memory, self.tell = model, max_tokens, max_memory, tell
        self.wanted: Callable[[], bool] = lambda: True  # whether to go on with what is under way
        self.model: Any = None
        self.tokenizer: Any = None
        self.session: Session | None = None

    def obey(self, command: Callable[..., None], *args: Any) -> None:
        """Whatever goes wrong is one line in the window, and the next command finds everything usable."""
        try:
            if not self.wanted():
                raise Cancelled("it was never begun")
            command(*args)
        except Cancelled:
            self.tell(Stopped())
        except LazyMLXError as error:
            self.tell(Failed(" ".join(str(error).split())))
        except Exception as error:  # a bug: the window lives on, and stderr says where it is
            traceback.print_exc()
            self.tell(Failed(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"))
        self.tell(Idle(self.model is not None, self.session is not None))

    def load(self) -> None:
        self.tell(Busy("loading the model"))
        self.model, self.tokenizer = lazymlx.load(self.name)
        name = "embedded model" if self.name == str(MODEL) else Path(self.name).name
        self.tell(Loaded(f"{name}, schedule {self.model.lazy.schedule}"))

    def open(self, path: Path) -> None:
        """Read a document into a session of its own; until that is done, the one before is kept."""
        if self.model is None:
            raise StateError("there is no model to read it with")
        self.tell(Busy(f"reading {path.name}"))
        started, session = time.perf_counter(), self.read(path)
        if self.session is not None:
            self.session.close()
        self.session = session
        self.tell(Opened(path.name, session.stats.context_tokens, time.perf_counter() - started))

    def read(self, path: Path) -> "Session":
        from lazymlx import read_document  # it loads MLX

        limits: Any = {"max_memory": self.max_memory, "step_size": STEP_SIZE}
        if path.suffix == ".lazydoc":
            return lazymlx.Session.open(path, self.model, self.tokenizer, **limits)
        session = lazymlx.Session(self.model, self.tokenizer, **limits)
        session.read(read_document(path), self.watch)
        return session

    def watch(self, progress: "Progress") -> bool:
        self.tell(Reading(progress.fraction))
        return self.wanted()

    def ask(self, question: str) -> None:
        session = self.session
        if session is None:
            raise StateError("open a document first")
        self.tell(Asked(question))
        self.tell(Busy("reading the question"))
        before, response, early = session.stats.revived, None, ""
        with closing(session.ask(question, self.max_tokens, on_progress=self.watch)) as responses:
            for response in responses:
                if response.generation_tokens == 1:
                    self.tell(Busy("answering"))
                self.tell(Piece(response.text))
                if response.finish_reason == "length":
                    early = f"cut off after {self.max_tokens} tokens"
                elif response.finish_reason is None and not self.wanted():
                    early = "stopped"
                    break
        assert response is not None, "an answer has at least a token that ends it"
        stats = session.stats
        self.tell(Answered(stats, stats.revived - before, response.generation_tps, early))

    def close(self) -> None:
        """Let go of the session and the model, on the thread that made them."""
        if self.session is not None:
            self.session.close()
        self.session = self.model = self.tokenizer = None
