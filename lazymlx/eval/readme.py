"""The README's quality tables and figures, rendered from stored runs between markers.

A block is `<!-- quality: FILE LENGTH -->` ... `<!-- /quality -->`, or `quality-figure` with FILE alone. FILE names a
run in the results folder, so that a number in the README always leads to its source.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .plot import plot
from .report import legend, lengths, read, rows_of, title

BLOCK = re.compile(
    r"(<!-- (quality|quality-figure): (\S+)(?: (\d+))? -->\n).*?(<!-- /\2 -->)",
    re.DOTALL,
)
EXAMPLE = "<!-- quality: RUN.json 4096 --> ... <!-- /quality -->"


class Missing(UsageError):
    """The README is not there, or has no markers to render between."""


class Readme:
    """A README and the folder of stored runs that its blocks name."""

    def __init__(self, path: Path, results: Path):
        self.path, self.results = path, results
        if not path.is_file():
            raise Missing(f"there is no {path} to render quality tables into")
        self.text = path.read_text(encoding="utf-8")
        if not BLOCK.search(self.text):
            raise Missing(f"{path} has no quality markers; expected e.g. {EXAMPLE}")

    def rendered(self, draw: bool) -> str:
        """The text with its blocks made anew; with `draw`, the figures too."""
        return BLOCK.sub(lambda found: f"{found[1]}{self._block(found, draw)}\n{found[5]}", self.text)

    def outdated(self) -> list[str]:
        """What differs from the stored runs."""
        found = [] if self.rendered(draw=False) == self.text else [f"{self.path}: its quality tables"]
        for block in BLOCK.finditer(self.text):
            figure, stamp = self._figure(block[3]), digest(self.results / block[3]).encode()
            if block[2] == "quality-figure" and not (figure.is_file() and stamp in figure.read_bytes()):
                found.append(str(figure))
        return found

    def _block(self, found: re.Match, draw: bool) -> str:
        content = read(self.results / found[3])
        if found[2] == "quality":
            return markdown(content, _length(content, found))
        figure = self._figure(found[3])
        if draw:
            plot(content, figure, digest(self.results / found[3]))
        return f"![Mean score over speed-up, a line per policy]({figure.relative_to(self.path.parent).as_posix()})"

    def _figure(self, name: str) -> Path:
        return self.results / f"{name.removesuffix('.json')}.png"


def _length(content: dict[str, Any], found: re.Match) -> int:
    known = lengths(content)
    length = known[-1] if found[4] is None else int(found[4])
    if length not in known:
        raise UsageError(f"{found[3]} has no answers at {length} tokens; it has {', '.join(map(str, known))}")
    return length


def markdown(content: dict[str, Any], length: int) -> str:
    """A run at one length as a table, under a line that says what it is."""
    heads, rows = rows_of(content, length)
    note = legend(content, length)
    return "\n".join(
        [
            f"{title(content, length)}, {content['machine']['date'][:10]}; scores in %" + (f"; {note}" if note else ""),
            "",
            "| " + " | ".join(heads) + " |",
            "| --- |" + " ---: |" * (len(heads) - 1),
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )


def digest(path: Path) -> str:
    """Tells whether a figure was made from this file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
