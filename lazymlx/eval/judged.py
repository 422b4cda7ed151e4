"""Answers of a policy beside the dense model's, as stored row by row: what the difference is, and how sure.

A row is an answer: `task`, `index`, `policy` and `point`; `score`; `nats_rise` and what else `agreement` tells; and
`prefill_fraction`, operations as a share of the dense prefill. Rows of the dense model have the policy `dense`.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import UsageError
from .intervals import interval, with_ends

JudgedRow = dict[str, Any]
NEEDED = {"task", "index", "policy", "point", "score", "nats_rise", "prefill_fraction"}
LEGEND = "In parentheses: not told apart from dense, since the interval holds 0."


def read(path: Path) -> list[JudgedRow]:
    """Rows of a compressed file of JSON lines.

    Raises:
        UsageError: it cannot be read, or a row lacks something.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    lacking = set[str]().union(*(NEEDED - row.keys() for row in rows)) if rows else NEEDED
    if lacking:
        raise UsageError(
            f"{path}: expected answers with {', '.join(sorted(NEEDED))}; lacks {', '.join(sorted(lacking))}"
        )
    return rows


def table(rows: Sequence[JudgedRow], names: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: for every policy, each task's difference from the dense score in points and the rise in nats a
    token, with their 95% intervals. Where several policies or points are compared, see `LEGEND`.

    Args:
        names: of the tasks, in the order of the columns; all of them, by their own names, if there are none.

    Raises:
        UsageError: there is no such task.
    """
    by_task: dict[str, dict[int, JudgedRow]] = defaultdict(dict)
    by_policy: dict[tuple[str, str], dict[str, list[JudgedRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["policy"] == "dense":
            by_task[row["task"]][row["index"]] = row
        else:
            by_policy[row["policy"], row["point"]][row["task"]].append(row)
    tasks = list(names) or list(by_task)
    if unknown := [task for task in tasks if task not in by_task]:
        raise UsageError(f"the run has no task {unknown[0]!r}; it has {', '.join(sorted(by_task))}")
    heads = ["", "FLOP-ideal", *(head for task in tasks for head in (names.get(task, task), "nats a token"))]
    dense = ["dense", "1.00x", *(cell for task in tasks for cell in (_dense(by_task[task]), "-"))]
    several = len(by_policy) > 1
    body = [_cells(name, [found[task] for task in tasks], by_task, several) for name, found in by_policy.items()]
    return heads, [dense, *body]


def _dense(rows: Mapping[int, JudgedRow]) -> str:
    return f"{100 * fmean(row['score'] for row in rows.values()):.1f} (n = {len(rows)})"


def _cells(
    name: tuple[str, str],
    by_task: Sequence[Sequence[JudgedRow]],
    dense: Mapping[str, Mapping[int, JudgedRow]],
    several: bool,
) -> list[str]:
    cells = [" ".join(name), f"{1 / fmean(row['prefill_fraction'] for rows in by_task for row in rows):.2f}x"]
    for rows in by_task:
        lost = [100 * (row["score"] - dense[row["task"]][row["index"]]["score"]) for row in rows]
        cells += [_mean(lost, "+.1f", several), _mean([row["nats_rise"] for row in rows], ".3f", several)]
    return cells


def _mean(values: Sequence[float], form: str, several: bool) -> str:
    ends = interval([values])
    cell = with_ends(fmean(values), ends, form)
    return f"({cell})" if several and ends is not None and ends[0] <= 0 <= ends[1] else cell
