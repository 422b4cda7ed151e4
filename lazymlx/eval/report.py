"""From answers to numbers: a cell per task, length, policy and point, the JSON of a run, and its tables.

Beside the scores stands what `agreement` found, with 95% intervals that are paired: each prompt's difference from the
dense model is drawn anew. Times are medians. A speed-up is the median over samples of the dense time over the policy's,
both for the same prompt.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..errors import UsageError
from .intervals import interval, with_ends
from .store import Row, Store

KIND = "lazymlx quality"
RESULTS = "results.json"
Cell = dict[str, Any]
MEASURES = ("score_difference", "nats_rise", "first_agrees", "same_as_dense", "f1_to_dense")
ALIKE = "~"  # stands behind what differs from the dense model by no more than chance
LEGEND = f"{ALIKE}: the 95% interval of the difference from dense holds zero"


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The answers to prompts that all policies, at all of their points, have answered: a table is about one set."""
    asked: dict[int, dict[tuple[str, str], set[tuple]]] = {}
    for row in rows:
        asked.setdefault(row["length"], {}).setdefault((row["policy"], row["point"]), set()).add(_prompt(row))
    shared = {length: set.intersection(*found.values()) for length, found in asked.items()}
    return [row for row in rows if _prompt(row) in shared[row["length"]]]


def cells(rows: Sequence[Row]) -> list[Cell]:
    """All cells, by length, then in the order in which their tasks and policies came."""
    dense = {_prompt(row): row for row in rows if row["policy"] == "dense"}
    found = _grouped([_beside(row, dense) for row in rows], "length", "policy", "point", "task")
    return [_cell(group, dense) for group in found]


def overall(rows: Sequence[Row]) -> list[Cell]:
    """A policy and its point over all tasks of a length, each task counting as much as the others."""
    dense = {_prompt(row): row for row in rows if row["policy"] == "dense"}
    found = _grouped([_beside(row, dense) for row in rows], "length", "policy", "point")
    names = "length", "policy", "point"
    return [{name: group[0][name] for name in names} | _measured(_grouped(group, "task")) for group in found]


def _grouped(rows: Sequence[Row], *names: str) -> list[list[Row]]:
    """Rows that have these in common; by length, then as the policies are listed."""
    from .policies import POLICIES  # they load MLX, which reading a stored run does not need

    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    order = list(POLICIES)
    return sorted(groups.values(), key=lambda group: (group[0]["length"], order.index(group[0]["policy"])))


def _prompt(row: Row) -> tuple:
    return row["task"], row["length"], row["index"]


def _beside(row: Row, dense: dict[tuple, Row]) -> Row:
    """A row with its difference from the dense one, if that is there; older runs did not store what they share."""
    other = dense.get(_prompt(row))
    if other is None:
        return row
    difference = row["score"] - other["score"]
    return {"same_as_dense": row["answer"] == other["answer"]} | row | {"score_difference": difference}


def _measured(groups: list[list[Row]]) -> Cell:
    """The mean of each measure over tasks and its interval; none where an answer lacks it."""
    found: Cell = {}
    for name in MEASURES:
        known = all(name in row for group in groups for row in group)
        values = [[float(row[name]) for row in group] for group in groups] if known else []
        found[name] = fmean(map(fmean, values)) if known else None
        found[f"{name}_interval"] = interval(values) if known else None
    return found


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
        **_measured([rows]),
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
    from .policies import POLICIES

    rows = comparable(store.rows)
    return {
        "kind": KIND,
        "machine": on,
        "model": model,
        "settings": store.settings,
        "complete": complete,
        "sources": {name: kind.source for name, kind in POLICIES.items()},
        "left_out": len(store.rows) - len(rows),
        "cells": cells(rows),
        "overall": overall(rows),
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


TableLine = dict[str, Any]


def lines(content: dict[str, Any], length: int) -> list[TableLine]:
    """One line per policy and point at a length: the score in every task, and means over the tasks of the rest."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in content["cells"]:
        if cell["length"] == length:
            groups.setdefault((cell["policy"], cell["point"]), []).append(cell)
    measured = {(c["policy"], c["point"]): c for c in content.get("overall", []) if c["length"] == length}
    return [
        {
            **dict.fromkeys(MEASURES),  # runs of earlier versions have none
            **measured.get((policy, point), {}),
            "policy": policy,
            "point": point,
            "scores": {cell["task"]: cell["score"] for cell in group},
            "alike": [cell["task"] for cell in group if _alike(cell)],
            "mean": fmean(cell["score"] for cell in group),
            "n": min(cell["n"] for cell in group),
            **{name: _mean(group, name) for name in ("ttft_s", "speedup", "ideal_speedup", "computed_fraction")},
        }
        for (policy, point), group in groups.items()
    ]


def _alike(cell: Cell, name: str = "score_difference") -> bool:
    """Whether it differs from the dense model by no more than chance may explain."""
    low, high = cell.get(f"{name}_interval") or (1, 0)  # no interval, no claim
    return cell["policy"] != "dense" and low <= 0 <= high


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


AGREEMENT: dict[str, tuple[str, Callable[[TableLine], str]]] = {
    "score_difference": ("against dense", lambda line: _with_interval(line, "score_difference", 100.0, ".1f")),
    "nats_rise": ("nats a token", lambda line: _with_interval(line, "nats_rise", 1.0, ".3f")),
    "first_agrees": ("first token", lambda line: f"{100 * line['first_agrees']:.0f}%"),
    "same_as_dense": ("same", lambda line: f"{100 * line['same_as_dense']:.0f}%"),
    "f1_to_dense": ("F1 to dense", lambda line: f"{100 * line['f1_to_dense']:.0f}"),
}


def _with_interval(line: TableLine, name: str, times: float, form: str) -> str:
    """A difference from the dense model, which has none from itself."""
    if line["policy"] == "dense":
        return ""
    found = line[f"{name}_interval"]
    ends = (times * found[0], times * found[1]) if found else None
    return with_ends(times * line[name], ends, f"+{form}") + (ALIKE if _alike(line, name) else "")


def measured(found: Sequence[TableLine]) -> list[str]:
    """The measures of agreement that any of the lines has."""
    return [name for name in MEASURES if any(line[name] is not None for line in found)]


def rows_of(content: dict[str, Any], length: int) -> tuple[list[str], list[list[str]]]:
    """The headings of a table and its fields, a line each."""
    found, names = lines(content, length), tasks(content, length)
    columns = measured(found)
    agreed = [AGREEMENT[name][0] for name in columns]
    short = [name.rsplit("/", 1)[-1] for name in names]
    heads = ["policy", "n", *short, "mean", *agreed, "TTFT", "speed-up", "FLOP-ideal", "computed"]
    return heads, [texts(line, names, columns) for line in found]


def texts(line: TableLine, names: Sequence[str], columns: Sequence[str] = ()) -> list[str]:
    """The fields of a line: scores in per cent, and those measures of agreement that were asked for."""
    scores = [_score(line, name) if name in line["scores"] else "" for name in names]
    return [
        f"{line['policy']} {line['point']}".strip(),
        f"{line['n']}",
        *scores,
        f"{100 * line['mean']:.1f}",
        *(AGREEMENT[name][1](line) if line[name] is not None else "" for name in columns),
        f"{1000 * line['ttft_s']:.0f} ms",
        f"{line['speedup']:.2f}x" if line["speedup"] else "",
        f"{line['ideal_speedup']:.2f}x",
        f"{100 * line['computed_fraction']:.0f}%",
    ]


BESIDE = ("nats_rise", "same_as_dense")  # of the measures of agreement, those that stand beside each task's score


def rows_by_task(content: dict[str, Any], length: int) -> tuple[list[str], list[list[str]]]:
    """The headings and fields of a table with each task's own agreement: dense scores, and differences from them."""
    names = tasks(content, length)
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in content["cells"]:
        if cell["length"] == length:
            cells.setdefault((cell["policy"], cell["point"]), {})[cell["task"]] = cell
    beside = [AGREEMENT[name][0] for name in BESIDE]
    heads = ["policy", "n", *(head for name in names for head in (name.rsplit("/", 1)[-1], *beside)), "FLOP-ideal"]
    return heads, [_by_task(found, names) for found in cells.values()]


def _by_task(cells: dict[str, Cell], names: Sequence[str]) -> list[str]:
    found = list(cells.values())
    fields = [text for name in names for text in (_beside_score(cells[name]) if name in cells else [""] * 3)]
    ideal = fmean(cell["ideal_speedup"] for cell in found)
    return [
        f"{found[0]['policy']} {found[0]['point']}".strip(),
        f"{min(c['n'] for c in found)}",
        *fields,
        f"{ideal:.2f}x",
    ]


def _beside_score(cell: Cell) -> list[str]:
    """A task's score, or its difference from the dense one, and its agreement."""
    measures = [AGREEMENT[name][1](cell) if cell.get(name) is not None else "" for name in BESIDE]
    apart = cell["policy"] != "dense" and cell.get("score_difference") is not None
    return [AGREEMENT["score_difference"][1](cell) if apart else f"{100 * cell['score']:.1f}", *measures]


def _score(line: TableLine, task: str) -> str:
    return f"{100 * line['scores'][task]:.0f}{ALIKE if task in line['alike'] else ''}"


def legend(content: dict[str, Any], length: int) -> str | None:
    """What the mark means, if it may occur."""
    return LEGEND if measured(lines(content, length)) else None


def table(content: dict[str, Any], length: int) -> Table:
    """Policies and their points against tasks."""
    drawn = Table(
        title=title(content, length),
        caption=legend(content, length),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    heads, rows = rows_of(content, length)
    for heading in heads:
        drawn.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=heading == "policy")
    for row in rows:
        drawn.add_row(*(escape(text) for text in row))
    return drawn
