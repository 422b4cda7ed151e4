"""A stored run of `scripts/bench_serve.py`: times to the first token of questions that were put to servers."""

from pathlib import Path
from statistics import median
from typing import Any

from .results import read_run

KIND = "lazymlx serving"
HEADS = ("conversation", "server", "1st question", "later ones", "1st, CPU", "later, CPU", "read for a later one")
ServingRun = dict[str, Any]


def read(path: Path) -> ServingRun:
    """A stored run.

    Raises:
        UsageError: it is none.
    """
    return read_run(path, KIND, "no run of servers; expected what scripts/bench_serve.py printed last")


def headline(run: ServingRun) -> str:
    """The machine and the model, in one line."""
    on, what = run["machine"], run["run"]
    parts = [
        f"{what['model']}, a document of {what['tokens']:,} tokens",
        f"{on['chip']}, {on['device']}" + (f", {on['cores']} cores, {on['blas']}" if on["device"] == "cpu" else ""),
        f"mlx {on['mlx']}, mlx-lm {on['mlx_lm']}, lazymlx {on['commit'] or on['lazymlx']}",
    ]
    return f"{'; '.join(parts)} ({on['date'][:10]})"


def rows(run: ServingRun) -> list[list[str]]:
    """A row a conversation and server: its first question, and of the later ones the median, to the first token.

    Seconds that passed, seconds that the server computed for (which others on the machine do not stretch), and tokens.
    """
    return [_row(result) for result in run["results"]]


def _row(result: ServingRun) -> list[str]:
    new = [prompt - cached for prompt, cached in zip(result["prompt_tokens"], result["cached_tokens"], strict=True)]
    times = [_seconds(each) for name in ("ttft_s", "cpu_s") for each in (result[name][:1], result[name][1:])]
    return [result["way"], result["server"], *times, f"{median(new[1:]):,.0f} tokens"]


def _seconds(measured: list[float | None]) -> str:
    known = [seconds for seconds in measured if seconds is not None]
    return f"{median(known):.2f} s" if known else "-"
