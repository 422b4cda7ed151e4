"""Progress on stderr: one bar for reading a prompt, for the steps of a long job, and for work that may end early.

Where stderr is no terminal there is no bar; a long job then says each step in a line, and now and then the time left.
"""

import sys
from collections.abc import Callable, Iterable
from itertools import count
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.progress import TimeRemainingColumn as Remaining

from ..errors import LazyMLXError, RunError
from ..progress import Progress
from .guess import Guess
from .pace import Pace
from .terminal import EXIT_INTERRUPTED, say

Advance = Callable[[str], None]
"""Is called when a part is done, with what it was."""


def make_bar(unit: str, *, shown: bool = True, kind: type[Bar] = Bar) -> Bar:
    """One line with what is done, how much of it, how long it has taken and how long it will; erased at the end."""
    return kind(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        Remaining(compact=True),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not (shown and sys.stderr is not None and sys.stderr.isatty()),
    )


class GuessingBar(Bar):
    """Moves between two reports too."""

    guess: Guess | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.guess is not None:
            for task in self.tasks:
                self.update(task.id, completed=self.guess.now())
        yield from super().get_renderables()


class PrefillBar:
    """An `OnProgress`; leaves no trace once the prompt is read, or given up."""

    def __init__(self, what: str, *, shown: bool = True):
        self._guess = Guess()
        bar = make_bar("tokens", shown=shown, kind=GuessingBar)
        assert isinstance(bar, GuessingBar)
        bar.guess = self._guess
        self.bar = bar
        self._task = bar.add_task(what, total=None)

    def __enter__(self) -> "PrefillBar":
        self.bar.start()
        return self

    def __call__(self, progress: Progress) -> None:
        self._guess.report(progress)
        self.bar.update(self._task, completed=progress.processed, total=progress.total)
        if progress.processed == progress.total:
            self.bar.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


class Steps:
    """Called with a step's name, a note, and how much of it is done."""

    def __init__(self, unit: str):
        self._bar = make_bar(unit)
        self._task = self._bar.add_task("", total=None)
        self._step = ""
        self._pace = Pace(say)

    def __enter__(self) -> "Steps":
        self._bar.start()
        return self

    def __call__(self, step: str, note: str, done: int, total: int) -> None:
        if step != self._step:
            self._step = step
            self._bar.reset(self._task)
            self._pace.restart()
            if self._bar.disable:
                say(step)
        if self._bar.disable:
            self._pace(done, total)
        self._bar.update(self._task, description=f"{step}{note}", completed=done, total=total)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._bar.disable:
            say(text)
        else:
            self._bar.console.print(f"lazymlx: {text}", markup=False, highlight=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def under_bar(first: str, total: int, work: Callable[[Advance], str | None]) -> tuple[int, str | None]:
    """Do work that takes minutes; whatever ends it early, what was done until then counts.

    Args:
        first: what is done first.
        total: parts that there are.
        work: says itself why it ended early, if it did.

    Returns:
        The exit code, and why it ended early.

    Raises:
        LazyMLXError: whatever the work raises on purpose.
    """
    with make_bar("done") as bar:
        task, pace, done = bar.add_task(first, total=total), Pace(say), count(1)

        def advance(what: str) -> None:
            bar.update(task, advance=1, description=what)
            if bar.disable:
                pace(next(done), total)

        try:
            return 0, work(advance)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED, "interrupted"
        except LazyMLXError:
            raise
        except RuntimeError as error:  # MLX's own, for want of memory above all
            return RunError.exit_code, f"stopped by an error: {error}"
