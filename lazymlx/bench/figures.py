"""Plots of stored runs. matplotlib is asked for only here, since only developers need it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .growth import COSTS, Fit, fits
from .results import SpeedRow, headline, rows

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
BOUND = "FLOP-ideal of "


def plot_speed(content: dict[str, Any], path: Path, source: str = "") -> None:
    """TTFT and the speed-up over stock, against the prompt's length; dotted, what the saved operations allow."""
    figure, (times, ratios) = _figure(2)
    found = rows(content)
    lengths = sorted({row["length"] for row in found})
    for name, colour in zip(_variants(found), COLOURS, strict=False):
        own = [row for row in found if row["variant"] == name]
        _line(times, own, lambda row: row["ttft"], name, colour)
        _line(ratios, own, lambda row: row["speedup"], name, colour)
        if any(row["ideal"] for row in own):
            _line(times, own, _ideal_time, BOUND + name, colour, ":")
            _line(ratios, own, _ideal_ratio, BOUND + name, colour, ":")
    _finish_axes(times, "seconds to the first token", lengths, log=True)
    _finish_axes(ratios, "times as fast as stock mlx-lm", lengths, log=False)
    ratios.set_ylim(bottom=0)
    _save(figure, times, headline(content), path, source)


def plot_growth(content: dict[str, Any], path: Path, source: str = "") -> None:
    """Each cost over the prompt's length, both logarithmic, with the fitted exponent in the legend."""
    found = fits(content)
    costs = list(dict.fromkeys(fit.cost for fit in found))
    if not costs:
        raise UsageError("growth: needs a run with at least two lengths")
    figure, axes = _figure(len(costs))
    names = list(dict.fromkeys(fit.variant for fit in found))
    for axis, cost in zip(axes, costs, strict=True):
        own = [fit for fit in found if fit.cost == cost]
        for fit in own:
            _fitted(axis, fit, COLOURS[names.index(fit.variant) % len(COLOURS)])
        _finish_axes(axis, f"{cost}, {COSTS[cost][0]}", sorted({n for fit in own for n in fit.lengths}), log=True)
        axis.legend(fontsize=8)
    _save(figure, None, headline(content), path, source)


def _fitted(axis: Any, fit: Fit, colour: str) -> None:
    axis.plot(fit.lengths, fit.values, "o", color=colour, markersize=4)
    axis.plot(fit.lengths, [fit.at(n) for n in fit.lengths], color=colour, label=f"{fit.variant}: N^{fit.exponent:.2f}")


def _ideal_time(row: SpeedRow) -> float | None:
    """Of the dense path's time, the share of its operations."""
    dense = row["ttft"] * row["over_dense"] if row["over_dense"] else None
    return dense / row["ideal"] if dense else None


def _ideal_ratio(row: SpeedRow) -> float | None:
    return row["speedup"] / row["of_ideal"] if row["of_ideal"] and row["speedup"] else None


def _variants(found: Sequence[SpeedRow]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in found))


def _figure(panels: int) -> tuple[Any, Sequence[Any]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plot: needs matplotlib; install it, or leave the plot out") from None
    figure = Figure(figsize=(5.2 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, number + 1) for number in range(panels)]


def _line(
    axis: Any,
    own: Sequence[SpeedRow],
    value: Callable[[SpeedRow], float | None],
    label: str,
    colour: str,
    style: str = "o-",
) -> None:
    points = [(row["length"], value(row)) for row in own]
    points = [(x, y) for x, y in points if y is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)


def _finish_axes(axis: Any, label: str, lengths: Sequence[int], log: bool) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [f"{n / 1024:g}k" if n >= 1024 else str(n) for n in lengths])
    axis.minorticks_off()
    if log:
        axis.set_yscale("log")
    axis.set_xlabel("prompt tokens")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)


def _save(figure: Any, legend_of: Any, title: str, path: Path, source: str) -> None:
    """`source` goes into the file: by it a check finds out whether the figure was made from the newest run."""
    if legend_of is not None:
        legend_of.legend(fontsize=8)
    figure.suptitle(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Source": source} if source else None)
