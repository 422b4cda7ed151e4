"""From answers to numbers: a cell per task, length, policy and point, the JSON of a run, and its tables.

Times are medians. A speed-up is the median over samples of the dense time over the policy's, both for the same prompt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import UsageError
from .policies import POLICIES
from .store import Row, Store

KIND = "lazymlx quality"
RESULTS = "results.json"
Cell = dict[str, Any]


def cells(rows: Sequence[Row]) -> list[Cell]:
    """All cells, by length, then in the order in which their tasks and policies came."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["length"], row["policy"], row["point"], row["task"]), []).append(row)
    dense = {_prompt(row): row for row in rows if row["policy"] == "dense"}
    order = list(POLICIES)
    ranked = sorted(groups.items(), key=lambda group: (group[0][0], order.index(group[0][1])))
    return [_cell(group, dense) for _, group in ranked]


def _prompt(row: Row) -> tuple:
    return row["task"], row["length"], row["index"]


def _cell(rows: list[Row], dense: dict[tuple, Row]) -> Cell:
    scores = [row["score"] for row in rows]
    pairs = [(row, dense[_prompt(row)]) for row in rows if _prompt(row) in dense]
    prefill = fmean(row["prefill_fraction"] for row in rows)
    later = [row["follow_up_ttft_s"] for row in rows if row["follow_up_ttft_s"] is not None]
    return {
        **{name: rows[0][name] for name in ("task", "length", "policy", "point")},
        "n": len(rows),
        "score": fmean(scores),
        "stderr": stdev(scores) / len(rows) ** 0.5 if len(rows) > 1 else None,
        "same_as_dense": fmean(row["answer"] == other["answer"] for row, other in pairs) if pairs else None,
        "prompt_tokens": median(row["prompt_tokens"] for row in rows),
        "ttft_s": median(row["ttft_s"] for row in rows),
        "speedup": median(other["ttft_s"] / row["ttft_s"] for row, other in pairs) if pairs else None,
        "ideal_speedup": 1 / prefill,
        "prefill_fraction": prefill,
        "computed_fraction": fmean(row["computed_fraction"] for row in rows),
        "follow_up_ttft_s": median(later) if later else None,
    }


def document(store: Store, on: dict[str, Any], model: dict[str, Any], complete: bool) -> dict[str, Any]:
    """All that a run found out on a `machine()`."""
    return {
        "kind": KIND,
        "machine": on,
        "model": model,
        "settings": store.settings,
        "complete": complete,
        "sources": {name: kind.source for name, kind in POLICIES.items()},
        "cells": cells(store.rows),
    }


def read(path: Path) -> dict[str, Any]:
    """A stored run."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not readable as a stored run: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UsageError(f"{path} is no run of lazymlx eval")
    return content


Line = dict[str, Any]


def lines(content: dict[str, Any], length: int) -> list[Line]:
    """One line per policy and point at a length: the score in every task, and means over the tasks of the rest."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in content["cells"]:
        if cell["length"] == length:
            groups.setdefault((cell["policy"], cell["point"]), []).append(cell)
    return [
        {
            "policy": policy,
            "point": point,
            "scores": {cell["task"]: cell["score"] for cell in group},
            "mean": fmean(cell["score"] for cell in group),
            "n": min(cell["n"] for cell in group),
            **{name: _mean(group, name) for name in ("ttft_s", "speedup", "ideal_speedup", "computed_fraction")},
        }
        for (policy, point), group in groups.items()
    ]


def _mean(group: list[Cell], name: str) -> float | None:
    values = [cell[name] for cell in group if cell[name] is not None]
    return fmean(values) if values else None


def lengths(content: dict[str, Any]) -> list[int]:
    return sorted({cell["length"] for cell in content["cells"]})


def tasks(content: dict[str, Any], length: int) -> list[str]:
    return list(dict.fromkeys(cell["task"] for cell in content["cells"] if cell["length"] == length))


def title(content: dict[str, Any], length: int) -> str:
    """What a table is about."""
    where = f"{length:,} tokens" if length else "prompts from files"
    on = content["machine"]
    return f"{content['model']['name']}, {where}, {on['chip']} ({on['device']})"


def headings(content: dict[str, Any], length: int) -> list[str]:
    names = [name.rsplit("/", 1)[-1] for name in tasks(content, length)]
    return ["policy", "n", *names, "mean", "TTFT", "speed-up", "FLOP-ideal", "computed"]


def texts(line: Line, names: Sequence[str]) -> list[str]:
    """The fields of a line under `headings`: scores in per cent."""
    scores = [f"{100 * line['scores'][name]:.0f}" if name in line["scores"] else "" for name in names]
    return [
        f"{line['policy']} {line['point']}".strip(),
        f"{line['n']}",
        *scores,
        f"{100 * line['mean']:.1f}",
        f"{1000 * line['ttft_s']:.0f} ms",
        f"{line['speedup']:.2f}x" if line["speedup"] else "",
        f"{line['ideal_speedup']:.2f}x",
        f"{100 * line['computed_fraction']:.0f}%",
    ]


def table(content: dict[str, Any], length: int) -> Table:
    """Policies and their points against tasks."""
    drawn = Table(title=title(content, length), box=SIMPLE_HEAD, title_justify="left")
    for heading in headings(content, length):
        drawn.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=heading == "policy")
    for line in lines(content, length):
        drawn.add_row(*texts(line, tasks(content, length)))
    return drawn
