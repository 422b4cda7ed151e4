"""Tables and figures in Markdown files, rendered from stored runs between markers: `scripts/tables`, without MLX.

A block is `<!-- KIND: RUN.json WORDS -->` ... `<!-- /KIND -->`. RUN names a file in the results folder, so that a
number in a text always leads to its source; the words after it choose rows:

    speed: RUN.json [LENGTH ...]              a speed run as a table, all lengths or these
    speed-runs: RUN.json RUN.json ...         several speed runs of one model, side by side
    curve: RUN.json                           decode rate over the number of tokens that come back
    growth: RUN.json                          a sentence: how costs grow with the prompt
    serving: RUN.json [CONVERSATION]          questions put to servers, in all sorts of conversations or in this one
    quality: RUN.json LENGTH [POLICY ...]     a quality run at one length (0: files), all policies or these
    agreement: RUN.json LENGTH [POLICY ...]   the same, with each task's own difference from the dense model
    judged: RUN.jsonl.gz [TASK=NAME ...]      answers beside the dense model's, policy by policy
    speed-figure, growth-figure, quality-figure: RUN.json
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .bench import figures, growth
from .bench import results as speeds
from .bench import serving as servers
from .errors import LazyMLXError, UsageError
from .eval import judged, plot
from .eval import report as scores

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "scripts" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md")

OPENING = re.compile(r"<!-- (\S+): (\S+\.json(?:l\.gz)?(?: \S+)*) -->\n")
BLOCK = re.compile(OPENING.pattern + r"(?:(?!<!-- \S+: \S+\.json).)*?<!-- /\1 -->", re.DOTALL)
RUN_NAMES = (".json", ".jsonl.gz")
SPEED = (  # heading, key of a row, format
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
Run = dict[str, Any]
RowsOf = Callable[[Run, int], tuple[list[str], list[list[str]]]]


def speed(run: Run, *lengths: str) -> str:
    """A speed run under a line that names the machine."""
    found = speeds.rows(run)
    known = {str(row["length"]) for row in found}
    _check_known(lengths, known, "length")
    chosen = [row for row in found if not lengths or str(row["length"]) in lengths]
    body = [[_speed_cell(row[key], form) for _, key, form in SPEED] for row in chosen]
    title = f"{speeds.headline(run)} ({run['machine']['date'][:10]})"
    return f"{title}\n\n{_table([heading for heading, _, _ in SPEED], body, texts=(1,))}"


def _speed_cell(value: Any, form: str) -> str:
    return f"{value * 1e3:.0f}" if form == "ms" and value else speeds.cell(value, form)


def speed_runs(*runs: Run) -> str:
    """Runs at the lengths that all have: TTFT over stock, the part of what operations allow, decode rate over stock."""
    by_run = [{(row["length"], row["variant"]): row for row in speeds.rows(run)} for run in runs]
    lengths = sorted(set.intersection(*({length for length, _ in found} for found in by_run)))
    ours = [name for name in dict.fromkeys(name for _, name in by_run[0]) if name != "stock"]
    body = []
    for run, found in zip(runs, by_run, strict=True):
        date, commit = run["machine"]["date"][:16].replace("T", " "), run["machine"]["commit"]
        for name in ours:
            cells = [_three(found[length, name]) if (length, name) in found else "-" for length in lengths]
            body.append([f"{date}, {commit}", name, *cells])
    return _table(["run", "", *(f"{length:,}" for length in lengths)], body, texts=(0, 1))


def _three(row: Run) -> str:
    shown = (("speedup", "{:.2f}x"), ("of_ideal", "{:.2f}"), ("decode_ratio", "{:.2f}x"))
    return " / ".join(speeds.cell(row[key], form) for key, form in shown)


def curve(run: Run) -> str:
    """Decode rate over the number of tokens that come back a step."""
    found = speeds.measured_curve(run)
    if not found:
        raise UsageError("curve: this run measured none")
    rates = [f"{median(record['decode_tps']):.1f}" for record in found]
    return _table(
        ["revived a step", *(str(record["revive"]) for record in found)], [["decode, tokens/s", *rates]], (0,)
    )


def quality(run: Run, length: str = "", *policies: str) -> str:
    """A quality run at one length under a line that says what it is."""
    return _quality(run, scores.rows_of, length, policies)


def agreement(run: Run, length: str = "", *policies: str) -> str:
    """The same, task by task."""
    return _quality(run, scores.rows_by_task, length, policies)


def _quality(run: Run, rows_of: RowsOf, length: str, policies: Sequence[str]) -> str:
    known = [str(n) for n in scores.lengths(run)]
    _check_known([length], known, "length")
    heads, body = rows_of(run, int(length))
    _check_known(policies, {row[0].split()[0] for row in body}, "policy")
    body = [row for row in body if not policies or row[0].split()[0] in policies]
    note = scores.legend(run, int(length))
    title = f"{scores.title(run, int(length))}, {run['machine']['date'][:10]}; scores in %{f'; {note}' if note else ''}"
    return f"{title}\n\n{_table(heads, body, texts=(0,))}"


def _check_known(asked: Sequence[str], known: Sequence[str] | set[str], what: str) -> None:
    for word in asked:
        if word not in known:
            raise UsageError(f"the run has no {what} {word!r}; it has {', '.join(sorted(known))}")


def _table(heads: Sequence[str], body: Sequence[Sequence[str]], texts: Sequence[int]) -> str:
    """Markdown; all columns but those that hold texts are numbers, to the right."""
    rule = [" --- " if number in texts else " ---: " for number in range(len(heads))]
    rows = ["| " + " | ".join(row) + " |" for row in (heads, *body)]
    return "\n".join([rows[0], f"|{'|'.join(rule)}|", *rows[1:]])


def serving(run: Run, *words: str) -> str:
    """Times to the first token of questions that were put to servers."""
    rows, asked = servers.rows(run), [" ".join(words)] if words else []
    _check_known(asked, {row[0] for row in rows}, "conversation")
    chosen = [row for row in rows if not asked or row[0] in asked]
    return f"{servers.headline(run)}\n\n{_table(servers.HEADS, chosen, texts=(0, 1))}"


def judged_answers(run: Sequence[judged.JudgedRow], *names: str) -> str:
    """Answers beside the dense model's, a row for each policy and point."""
    heads, body = judged.table(run, dict(name.split("=", 1) for name in names))
    marked = any(cell.startswith("(") for row in body for cell in row)
    return _table(heads, body, texts=(0,)) + (f"\n\n{judged.LEGEND}" if marked else "")


LOADERS: dict[str, Callable[[Path], Any]] = {
    "judged": judged.read,
    "serving": servers.read,
    "speed": speeds.read,
    "growth": speeds.read,
    "curve": speeds.read,
    "quality": scores.read,
    "agreement": scores.read,
}
TEXTS: dict[str, Callable[..., str]] = {
    "speed": speed,
    "speed-runs": speed_runs,
    "curve": curve,
    "serving": serving,
    "growth": growth.sentence,
    "quality": quality,
    "agreement": agreement,
    "judged": judged_answers,
}
DRAWERS: dict[str, tuple[Callable[[Run, Path, str], None], str, str]] = {  # and what is added to the run's name
    "speed-figure": (figures.plot_speed, "-speed", "Time to the first token and speed-up over the prompt's length"),
    "growth-figure": (figures.plot_growth, "-growth", "Growth of the costs with the prompt's length"),
    "quality-figure": (plot.plot, "", "Mean score over speed-up, a line per policy"),
}


class Page:
    """A Markdown file whose blocks name stored runs.

    Raises:
        UsageError: it is not there, has no block, or one that is not closed or of no known kind.
    """

    def __init__(self, path: Path, results: Path = RESULTS):
        self.path, self.results = path, results
        try:
            self.text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        self.blocks = list(BLOCK.finditer(self.text))
        if not self.blocks:
            raise UsageError(f"{path} has no blocks; expected e.g. <!-- speed: RUN.json --> ... <!-- /speed -->")
        whole = {block.start() for block in self.blocks}
        for opening in OPENING.finditer(self.text):
            if opening.start() not in whole:
                raise UsageError(f"{path}: {opening[0].strip()} is not closed; expected <!-- /{opening[1]} -->")
            if opening[1] not in TEXTS and opening[1] not in DRAWERS:
                raise UsageError(f"{path}: no kind {opening[1]!r}; known are {', '.join([*TEXTS, *DRAWERS])}")

    def rendered(self) -> str:
        """The text with its blocks made anew."""
        return BLOCK.sub(
            lambda b: f"<!-- {b[1]}: {b[2]} -->\n{self._body(b[1], b[2].split())}\n<!-- /{b[1]} -->", self.text
        )

    def stale_figures(self) -> list[tuple[str, str]]:
        """Kind and run of each figure that was not drawn from the run as it is now."""
        named = [(b[1], b[2]) for b in self.blocks if b[1] in DRAWERS]
        return [pair for pair in named if not _made_from(self._figure(*pair), self.results / pair[1])]

    def outdated(self) -> list[str]:
        """What differs from the stored runs."""
        tables = [] if self.rendered() == self.text else [f"{self.path}: its tables"]
        return tables + [str(self._figure(*pair)) for pair in self.stale_figures()]

    def write(self) -> None:
        """Render the tables, and draw the figures that are not up to date."""
        self.path.write_text(self.rendered(), encoding="utf-8")
        for kind, name in self.stale_figures():
            source = self.results / name
            DRAWERS[kind][0](self._read(kind, name), self._figure(kind, name), digest(source))

    def _body(self, kind: str, words: list[str]) -> str:
        runs = [word for word in words if word.endswith(RUN_NAMES)]
        if kind in TEXTS:
            try:
                return TEXTS[kind](*(self._read(kind, run) for run in runs), *words[len(runs) :])
            except UsageError as error:
                raise UsageError(f"{self.path}: {kind}: {' '.join(words)}: {error}") from None
        link = os.path.relpath(self._figure(kind, runs[0]), self.path.parent)
        return f"![{DRAWERS[kind][2]}]({Path(link).as_posix()})"

    def _read(self, kind: str, name: str) -> Any:
        return LOADERS[kind.split("-")[0]](self.results / name)

    def _figure(self, kind: str, name: str) -> Path:
        return self.results / f"{name.removesuffix('.json')}{DRAWERS[kind][1]}.png"


def digest(path: Path) -> str:
    """Stands in a figure, and tells whether it was made from this file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def _made_from(figure: Path, source: Path) -> bool:
    return figure.is_file() and source.is_file() and digest(source).encode() in figure.read_bytes()


def main(argv: Sequence[str] | None = None) -> int:
    """Render the files, or with --check say what is not as the stored runs say."""
    parser = argparse.ArgumentParser(prog="scripts/tables", description="Render tables and figures from stored runs.")
    parser.add_argument("files", nargs="*", type=Path, help="default: README.md and scripts/results/README.md")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if something is outdated")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: scripts/results")
    args = parser.parse_args(argv)
    try:
        pages = [Page(path, args.results) for path in args.files or PAGES]
        outdated = [what for page in pages for what in page.outdated()]
        if not args.check:
            for page in pages:
                page.write()
    except LazyMLXError as error:
        print(f"tables: error: {error}", file=sys.stderr)
        return error.exit_code
    for what in outdated:
        print(f"tables: {what}: {'outdated, run scripts/tables' if args.check else 'rendered'}", file=sys.stderr)
    return int(bool(outdated) and args.check)


if __name__ == "__main__":
    sys.exit(main())
