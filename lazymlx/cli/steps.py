"""The progress of a long job of several steps, on stderr: a bar on a terminal, else a line for each step."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .terminal import say


class Steps:
    """Called with a step's name, a note, and how much of it is done."""

    def __init__(self, unit: str):
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not (sys.stderr is not None and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("", total=None)
        self._step = ""

    def __enter__(self) -> "Steps":
        self._bar.start()
        return self

    def __call__(self, step: str, note: str, done: int, total: int) -> None:
        if step != self._step:
            self._step = step
            self._bar.reset(self._task)
            if self._bar.disable:
                say(step)
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
