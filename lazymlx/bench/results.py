"""From records to numbers that can be compared: the JSON of a run, its summary line, and its table.

A ratio is of medians. `stock` is the better of its step sizes at each length; its default is the first of them.
"""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ..errors import UsageError
from ..units import size

if TYPE_CHECKING:
    from .measure import Bench

KIND = "lazymlx speed"
SpeedRow = dict[str, Any]


def document(bench: "Bench", on: dict[str, Any]) -> dict[str, Any]:
    """All that a run measured on a `machine()`."""
    plan = bench.plan
    return {
        "kind": KIND,
        "machine": on,
        "model": bench.pair.describe,
        "protocol": {
            "repeats": plan.repeats,
            "tokens": plan.tokens,
            "lazy": {k: v for k, v in asdict(plan.lazy).items() if k not in ("schedule", "scorer")},
            "budget_s": plan.budget_s,
            "complete": bench.complete,
        },
        "first_answer_s": bench.first_answer_s,
        "records": [asdict(record) for record in bench.records],
        "curve": [asdict(record) for record in bench.curve],
    }


def file_name(content: dict[str, Any]) -> str:
    """Date, model and chip."""
    stamp = datetime.fromisoformat(content["machine"]["date"]).strftime("%Y%m%d-%H%M%S")
    words = f"{content['model']['name']} {content['machine']['chip']}".lower()
    words = "".join(c if c.isalnum() or c == "." else " " for c in words).split()
    return f"speed-{stamp}-{'-'.join(words)}.json"


def read(path: Path) -> dict[str, Any]:
    """A stored run."""
    return read_run(path, KIND, "no stored speed run; expected a file that 'lazymlx bench' wrote")


def read_run(path: Path, kind: str, otherwise: str) -> dict[str, Any]:
    """A stored run of some kind.

    Args:
        otherwise: what a file is that holds something else.

    Raises:
        UsageError: it cannot be read, or is of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise UsageError(f"{path} is {otherwise}")
    return content


def rows(content: dict[str, Any]) -> list[SpeedRow]:
    """One row a variant and length: its medians, and how they compare with stock and dense at the same length."""
    lengths = sorted({record["length"] for record in content["records"]})
    return [row for length in lengths for row in _rows_at(content["records"], length)]


def _rows_at(records: list[SpeedRow], length: int) -> list[SpeedRow]:
    here = [_with_medians(record) for record in records if record["length"] == length]
    stocks = [row for row in here if row["variant"] == "stock"]  # that at mlx-lm's default step size first
    stock = _best(stocks)
    dense = next((row for row in here if row["variant"] == "dense"), None)
    ours = [row for row in here if row["variant"] != "stock"]
    default = stocks[0] if stocks else None
    compared = [row | _ratios(row, stock, dense) for row in ([stock] if stock else []) + ours]
    return [row | {"over_default": _over(default, row, "ttft")} for row in compared]


def _with_medians(record: SpeedRow) -> SpeedRow:
    times, rates = record["ttft_s"], record["decode_tps"]
    middle = median(times) if times else None
    return record | {
        "ttft": middle,
        "spread": (max(times) - min(times)) / middle if middle else None,
        "tps": median(rates) if rates else None,
        "cache_bytes": _sum(record["kv_bytes"], record["aux_bytes"]),
        "runs": len(times),
    }


def _best(stock: list[SpeedRow]) -> SpeedRow | None:
    """Of stock's step sizes the fastest; its decode rate and memory are those of its default."""
    timed = [row for row in stock if row["ttft"]]
    if not timed:
        return stock[0] if stock else None
    return stock[0] | {
        key: min(timed, key=lambda row: row["ttft"])[key] for key in ("ttft", "spread", "step", "ttft_s")
    }


def _ratios(row: SpeedRow, stock: SpeedRow | None, dense: SpeedRow | None) -> SpeedRow:
    over_dense = _over(dense, row, "ttft")
    ideal = row["ideal"]
    return {
        "speedup": _over(stock, row, "ttft"),
        "over_dense": over_dense,
        "of_ideal": over_dense / ideal if over_dense and ideal else None,
        "of_ideal_kept": over_dense / row["ideal_kept"] if over_dense and row["ideal_kept"] else None,
        "decode_ratio": _over(row, stock, "tps"),
        "peak_ratio": _over(row, stock, "peak_bytes"),
        "cache_ratio": _over(row, stock, "cache_bytes"),
    }


def _over(above: SpeedRow | None, below: SpeedRow | None, key: str) -> float | None:
    return above[key] / below[key] if above and below and above[key] and below[key] else None


def _sum(*values: int | None) -> int | None:
    return sum(v for v in values if v is not None) if any(v is not None for v in values) else None


def summary(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The line for other programs."""
    keys = (
        "length",
        "variant",
        "schedule",
        "step",
        "ttft",
        "speedup",
        "over_default",
        "over_dense",
        "ideal",
        "of_ideal",
        "tps",
    )
    keys += ("decode_ratio", "peak_bytes", "peak_ratio", "kv_bytes", "aux_bytes", "cache_ratio", "runs")
    return {
        "bench": KIND,
        "file": str(path),
        "model": content["model"]["name"],
        "chip": content["machine"]["chip"],
        "complete": content["protocol"]["complete"],
        "first_answer_s": _rounded(content.get("first_answer_s")),
        "rows": [{key: _rounded(row[key]) for key in keys} for row in rows(content)],
        "curve": [{"revive": r["revive"], "tps": _rounded(median(r["decode_tps"]))} for r in measured_curve(content)],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def measured_curve(content: dict[str, Any]) -> list[SpeedRow]:
    return [record for record in content["curve"] if record["decode_tps"]]


def headline(content: dict[str, Any]) -> str:
    """The machine and the model, in one line."""
    on, model = content["machine"], content["model"]
    weights = f"{model['bits']}-bit" if model["bits"] else model["dtype"]
    parts = [
        f"{model['name']}, {'random weights, ' if model['random'] else ''}{weights}",
        f"{on['chip']}, {on['device']}" + (f", {on['cores']} cores, {on['blas']}" if on["device"] == "cpu" else ""),
        f"mlx {on['mlx']}, mlx-lm {on['mlx_lm']}, lazymlx {on['commit'] or on['lazymlx']}",
    ]
    return "; ".join(parts)


COLUMNS: tuple[tuple[str, str, str], ...] = (  # heading, key of a row, format
    ("tokens", "length", "{:,}"),
    ("", "variant", "{}"),
    ("TTFT s", "ttft", "{:.3f}"),
    ("± %", "spread", "{:.0%}"),
    ("x stock", "speedup", "{:.2f}"),
    ("x its default", "over_default", "{:.2f}"),
    ("x dense", "over_dense", "{:.2f}"),
    ("ideal", "ideal", "{:.2f}"),
    ("of ideal", "of_ideal", "{:.2f}"),
    ("decode t/s", "tps", "{:.1f}"),
    ("x stock", "decode_ratio", "{:.2f}"),
    ("peak", "peak_bytes", "bytes"),
    ("cache", "cache_bytes", "bytes"),
    ("of stock's", "cache_ratio", "{:.2f}"),
)


def cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return size(value, decimals=2) if form == "bytes" else form.format(value)


def table(content: dict[str, Any]) -> Table:
    """For a terminal: only the columns in which something was measured."""
    found = rows(content)
    columns = [c for c in COLUMNS if any(row[c[1]] is not None for row in found)]
    made = Table(title=headline(content), title_justify="left")
    for heading, key, _ in columns:
        made.add_column(heading, justify="left" if key == "variant" else "right")
    previous = None
    for row in found:
        if previous not in (None, row["length"]):
            made.add_section()
        made.add_row(*(cell(row[key], form) for _, key, form in columns))
        previous = row["length"]
    return made


def curve_table(content: dict[str, Any]) -> Table | None:
    """Decode rate over the number of tokens revived a step."""
    found = measured_curve(content)
    if not found:
        return None
    made = Table(title=f"Decode behind {found[0]['schedule']} at {found[0]['length']:,} tokens", title_justify="left")
    made.add_column("revived a step")
    made.add_column("decode t/s", justify="right")
    for record in found:
        made.add_row(str(record["revive"]), f"{median(record['decode_tps']):.1f}")
    return made
