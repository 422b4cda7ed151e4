"""Accuracy over speed-up, one line a policy. matplotlib is asked for only here, since only reports need it."""

from pathlib import Path
from typing import Any

from ..errors import UsageError
from .policies import POLICIES
from .report import Line, lengths, lines

COLOURS = ("#222222", "#c44e52", "#dd8452", "#937860", "#999999", "#4c72b0", "#55a868", "#8172b3", "#64b5cd")
MARKERS = "*osxPD^v<"


def plot(content: dict[str, Any], path: Path, source: str = "") -> None:
    """A panel per length; `source` goes into the file, so that a check can tell which run it was made from."""
    figure, axes = _figure(len(lengths(content)))
    measured = any(cell["speedup"] is not None for cell in content["cells"])
    key, label = ("speedup", "measured TTFT") if measured else ("ideal_speedup", "FLOP-ideal")
    for axis, length in zip(axes, lengths(content), strict=True):
        found = lines(content, length)
        for number, name in enumerate(POLICIES):
            _draw(axis, [line for line in found if line["policy"] == name], key, name, number)
        axis.set_title(f"{length:,} tokens" if length else "prompts from files", fontsize=9)
        axis.set_xlabel(f"times as fast as dense ({label})")
        axis.set_ylabel("mean score over the tasks, %")
        axis.set_ylim(-2, 102)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    on = content["machine"]
    figure.suptitle(f"{content['model']['name']}, {on['chip']} ({on['device']}), {on['date'][:10]}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Source": source} if source else None)


def _draw(axis: Any, found: list[Line], key: str, name: str, number: int) -> None:
    points = sorted((line[key], 100 * line["mean"]) for line in found if line[key] is not None)
    if points:
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axis.plot(*zip(*points, strict=True), label=name, **style)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plot: needs matplotlib; install it, or leave the plot out with --no-plot") from None
    figure = Figure(figsize=(5.2 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
