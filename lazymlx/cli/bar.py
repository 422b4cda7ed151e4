"""A progress bar on stderr while a prompt is read; none where stderr is no terminal."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..progress import Progress


class PrefillBar:
    """An `OnProgress`; leaves no trace once the prompt is read, or given up."""

    def __init__(self, what: str, *, shown: bool = True):
        console = Console(stderr=True)
        self._bar = Bar(
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
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> "PrefillBar":
        self._bar.start()
        return self

    def __call__(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.processed, total=progress.total)
        if progress.processed == progress.total:
            self._bar.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
