"""A progress bar on stderr while a prompt is read; none where stderr is no terminal."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class PrefillBar:
    """Called as mlx-lm's `prompt_progress_callback`; leaves no trace once the prompt is read, or given up."""

    def __init__(self, what: str, *, shown: bool = True):
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tokens"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not (shown and sys.stderr is not None and sys.stderr.isatty()),
        )
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> "PrefillBar":
        self._progress.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        if done == total - 1:
            return  # the chunk before the last token is only computed with it
        self._progress.update(self._task, completed=done, total=total)
        if done == total:
            self._progress.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
