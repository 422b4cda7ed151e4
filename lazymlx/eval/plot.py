"""Accuracy over speed-up, one line a policy. matplotlib is asked for only here, since only reports need it."""

from pathlib import Path
from typing import Any

from ..errors import UsageError
from .report import TableLine, lengths, lines

COLOURS = ("#222222", "#c44e52", "#dd8452", "#937860", "#999999", "#4c72b0", "#55a868", "#8172b3", "#64b5cd")
MARKERS = "*osxPD^v<"
SPEEDUPS = (("speedup", "measured TTFT"), ("ideal_speedup", "FLOP-ideal"))


def plot(content: dict[str, Any], path: Path, source: str = "") -> None:
    """A panel per length over the measured speed-up, and below it one over the FLOP-ideal, which no machine disturbs.

    Args:
        source: goes into the file, so that a check can tell which run it was made from.
    """
    measured = any(cell["speedup"] is not None for cell in content["cells"])
    rows = SPEEDUPS if measured else SPEEDUPS[1:]
    figure, axes = _figure(len(rows), len(lengths(content)))
    for (key, label), panels in zip(rows, axes, strict=True):
        for axis, length in zip(panels, lengths(content), strict=True):
            found = lines(content, length)
            for number, name in enumerate(content["sources"]):
                _draw(axis, [line for line in found if line["policy"] == name], key, name, number)
            axis.set_title(f"{length:,} tokens" if length else "prompts from files", fontsize=9)
            axis.set_xlabel(f"times as fast as dense ({label})")
            axis.set_ylabel("mean score over the tasks, %")
            axis.set_ylim(-2, 102)
            axis.grid(alpha=0.3)
    axes[-1][0].legend(fontsize=8)
    on = content["machine"]
    figure.suptitle(f"{content['model']['name']}, {on['chip']} ({on['device']}), {on['date'][:10]}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Source": source} if source else None)


def _draw(axis: Any, found: list[TableLine], key: str, name: str, number: int) -> None:
    points = sorted((line[key], 100 * line["mean"]) for line in found if line[key] is not None)
    if points:
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axis.plot(*zip(*points, strict=True), label=name, **style)


def _figure(rows: int, columns: int) -> tuple[Any, list[list[Any]]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plot: needs matplotlib; install it, or leave the plot out with --no-plot") from None
    figure = Figure(figsize=(5.2 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(panels) for panels in axes]
