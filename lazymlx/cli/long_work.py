"""Work that takes minutes: under a progress bar, and whatever ends it early, what was done until then counts."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import LazyMLXError, RunError
from .terminal import INTERRUPTED

Advance = Callable[[str], None]
"""Is told when a part is done, and what it was."""


def under_bar(first: str, total: int, work: Callable[[Advance], str | None]) -> tuple[int, str | None]:
    """Do the work. Returns the exit code, and why it ended early.

    Args:
        first: what is done first.
        total: parts that there are.
        work: says itself why it ended early, if it did.

    Raises:
        LazyMLXError: whatever the work raises on purpose.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times, console = (TimeElapsedColumn(), TimeRemainingColumn()), Console(stderr=True)
    with Progress(*columns, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(first, total=total)
        try:
            return 0, work(lambda what: bar.update(task, advance=1, description=what))
        except KeyboardInterrupt:
            return INTERRUPTED, "interrupted"
        except LazyMLXError:
            raise
        except RuntimeError as error:  # MLX's own, for want of memory above all
            return RunError.exit_code, f"stopped by an error: {error}"
