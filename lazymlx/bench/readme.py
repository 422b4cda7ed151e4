"""The README's speed table, figures and sentence, rendered from stored runs between markers.

A block is `<!-- speed: FILE -->` ... `<!-- /speed -->`; likewise `speed-figure`, `growth`, `growth-figure` and `curve`,
and `speed-runs` with any number of files. FILE names a run in the results folder, so that a number in the README always
leads to its source.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import UsageError
from .figures import plot_growth, plot_speed
from .growth import sentence
from .report import cell, headline, measured_curve, read, rows

KINDS = "speed|speed-runs|speed-figure|growth|growth-figure|curve"
BLOCK = re.compile(rf"(<!-- ({KINDS}): (\S+(?: \S+)*?) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
COLUMNS = (  # heading, key of a row, format
    ("tokens", "length", "{:,}"),
    ("", "variant", "{}"),
    ("TTFT, ms", "ttft", "ms"),
    ("over stock, better step", "speedup", "{:.2f}x"),
    ("over stock, default step", "over_default", "{:.2f}x"),
    ("over dense", "over_dense", "{:.2f}x"),
    ("FLOP-ideal", "ideal", "{:.2f}x"),
    ("decode, tokens/s", "tps", "{:.1f}"),
    ("peak above weights", "peak_bytes", "bytes"),
    ("KV + aux, of stock's", "cache_ratio", "{:.2f}"),
)


class Missing(UsageError):
    """The README has no markers to render between."""


def markdown_table(content: dict[str, Any]) -> str:
    """A run as a table, under a line that names the machine."""
    lines = [f"{headline(content)} ({content['machine']['date'][:10]})", ""]
    lines.append("| " + " | ".join(heading for heading, _, _ in COLUMNS) + " |")
    lines.append("|" + "|".join(" --- " if key == "variant" else " ---: " for _, key, _ in COLUMNS) + "|")
    for row in rows(content):
        cells = (
            f"{row[key] * 1e3:.0f}" if form == "ms" and row[key] else cell(row[key], form) for _, key, form in COLUMNS
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown_curve(content: dict[str, Any]) -> str:
    """Decode rate over the number of tokens revived a step."""
    found = measured_curve(content)
    if not found:
        raise UsageError("curve: this run measured none")
    names = " | ".join(str(record["revive"]) for record in found)
    rates = " | ".join(f"{median(record['decode_tps']):.1f}" for record in found)
    return f"| revived a step | {names} |\n| --- |{' ---: |' * len(found)}\n| decode, tokens/s | {rates} |"


def markdown_runs(*contents: dict[str, Any]) -> str:
    """Several runs of one model, at the lengths that all of them have: TTFT over stock, the part of what the operations
    allow, and the decode rate over stock."""
    of_runs = [{(row["length"], row["variant"]): row for row in rows(content)} for content in contents]
    lengths = sorted(set.intersection(*({length for length, _ in found} for found in of_runs)))
    ours = [name for name in dict.fromkeys(name for _, name in of_runs[0]) if name != "stock"]
    lines = [
        f"| run | | {' | '.join(f'{length:,}' for length in lengths)} |",
        f"| --- | --- |{' ---: |' * len(lengths)}",
    ]
    for content, found in zip(contents, of_runs, strict=True):
        date, commit = content["machine"]["date"][:16].replace("T", " "), content["machine"]["commit"]
        for name in ours:
            cells = (_together(found[length, name]) if (length, name) in found else "-" for length in lengths)
            lines.append(f"| {date}, {commit} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _together(row: dict[str, Any]) -> str:
    return " / ".join(
        cell(row[key], form)
        for key, form in (("speedup", "{:.2f}x"), ("of_ideal", "{:.2f}"), ("decode_ratio", "{:.2f}x"))
    )


Drawer = Callable[[dict[str, Any], Path, str], None]
TEXTS: dict[str, Callable[..., str]] = {
    "speed": markdown_table,
    "speed-runs": markdown_runs,
    "growth": sentence,
    "curve": markdown_curve,
}
DRAWERS: dict[str, tuple[Drawer, str]] = {
    "speed-figure": (plot_speed, "Time to the first token and speed-up over the prompt's length"),
    "growth-figure": (plot_growth, "Growth of the costs with the prompt's length"),
}


class Readme:
    """A README and the folder of stored runs that its blocks name."""

    def __init__(self, path: Path, results: Path):
        self.path, self.results = path, results
        self.text = path.read_text(encoding="utf-8")
        if not BLOCK.search(self.text):
            raise Missing(f"{path} has no speed markers; expected e.g. <!-- speed: RUN.json --> ... <!-- /speed -->")

    def rendered(self, draw: bool) -> str:
        """The text with its blocks made anew; with `draw`, the figures too."""
        return BLOCK.sub(lambda found: found[1] + self._block(found[2], found[3], draw) + "\n" + found[4], self.text)

    def outdated(self) -> list[str]:
        """What differs from the stored runs."""
        found = [] if self.rendered(draw=False) == self.text else [f"{self.path}: its tables"]
        for kind, name in ((b[2], b[3]) for b in BLOCK.finditer(self.text)):
            figure = self._figure(kind, name)
            if kind in DRAWERS and not (
                figure.is_file() and digest(self.results / name).encode() in figure.read_bytes()
            ):
                found.append(str(figure))
        return found

    def _block(self, kind: str, name: str, draw: bool) -> str:
        if kind in TEXTS:
            return TEXTS[kind](*(read(self.results / each) for each in name.split()))
        source = self.results / name
        content = read(source)
        drawer, words = DRAWERS[kind]
        figure = self._figure(kind, name)
        if draw:
            drawer(content, figure, digest(source))
        return f"![{words}]({figure.relative_to(self.path.parent).as_posix()})"

    def _figure(self, kind: str, name: str) -> Path:
        return self.results / f"{name.removesuffix('.json')}-{kind.removesuffix('-figure')}.png"


def digest(path: Path) -> str:
    """Tells whether a figure was made from this file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
