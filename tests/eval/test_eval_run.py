"""The matrix and what becomes of its answers: kept at once, resumed, added up, shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from lazymlx.errors import UsageError
from lazymlx.eval import report
from lazymlx.eval.store import ANSWERS, Store

SETTINGS = {"model": "m", "seed": 0, "chip": "Chip"}


def row(policy: str, index: int = 0, **changes: Any) -> dict[str, Any]:
    given = {
        "task": "facts",
        "length": 1024,
        "index": index,
        "policy": policy,
        "point": "" if policy == "dense" else "8:0.25",
        "score": 1.0,
        "answer": "x",
        "prompt_tokens": 1024,
        "ttft_s": 0.2,
        "follow_up_ttft_s": None,
        "prefill_fraction": 1.0 if policy == "dense" else 0.5,
        "computed_fraction": 1.0 if policy == "dense" else 0.6,
    }
    return given | changes


def content(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    store = Store(folder, SETTINGS)
    for one in rows:
        store.add(one)
    on = {"chip": "Chip", "device": "cpu", "date": "2026-01-02T03:04:05+00:00"}
    return report.document(store, on, {"name": "m"}, complete=True)


def test_a_store_keeps_every_answer_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "run", SETTINGS)
    store.add(row("dense"))
    assert json.loads((tmp_path / "new" / "run" / ANSWERS).read_text()) == row("dense")
    again = Store(tmp_path / "new" / "run", SETTINGS, resume=True)
    assert again.rows == [row("dense")] == store.rows


def test_a_run_is_not_added_to_by_accident(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS).add(row("dense"))
    with pytest.raises(UsageError, match="holds a run already; go on with it by --resume"):
        Store(tmp_path, SETTINGS)


@pytest.mark.parametrize("name", ["settings.json", "results.json"])
@pytest.mark.parametrize("text", ["mine", '{"theme": "dark"}'])
def test_files_of_another_kind_are_not_overwritten(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"{name} is not of a run and would be lost"):
        Store(tmp_path, SETTINGS)
    assert (tmp_path / name).read_text() == text


def test_a_run_is_not_mixed_with_one_of_other_settings(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS).add(row("dense"))
    with pytest.raises(UsageError, match="other settings: seed was 0, is 1"):
        Store(tmp_path, SETTINGS | {"seed": 1}, resume=True)


def test_of_other_engine_settings_only_those_that_differ_are_named(tmp_path: Path) -> None:
    before = {"seed": 0, "lazy": {"window": 16, "pool": 13}}
    Store(tmp_path, before).add(row("dense"))
    with pytest.raises(UsageError, match="other settings: window was 16, is 8$"):
        Store(tmp_path, before | {"lazy": {"window": 8, "pool": 13}}, resume=True)


def test_wherever_a_line_was_cut_off_it_is_asked_again(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS).add(row("dense"))
    path = tmp_path / ANSWERS
    first = path.read_bytes()
    second = first.replace(b"dense", b"lazy")
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        store = Store(tmp_path, SETTINGS, resume=True)
        assert store.rows == [row("dense")], cut
        store.add(row("random"))
        assert Store(tmp_path, SETTINGS, resume=True).rows == [row("dense"), row("random")]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    store.add(row("dense"))
    store.path.write_bytes(b"{}\n" + store.path.read_bytes())
    with pytest.raises(UsageError, match="line 1 is not of such a run"):
        Store(tmp_path, SETTINGS, resume=True)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--out: .*file is no folder"):
        Store(tmp_path / "file" / "run", SETTINGS)


def test_cells_are_means_medians_and_paired_ratios(tmp_path: Path) -> None:
    rows = [row("dense", i, ttft_s=0.2 * (i + 1)) for i in range(3)]
    rows += [row("lazy", i, ttft_s=0.1 * (i + 1), score=float(i > 0), answer="xy"[i == 0]) for i in range(3)]
    dense, lazy = content(rows, tmp_path)["cells"]
    assert (dense["policy"], dense["n"], dense["speedup"], dense["score"]) == ("dense", 3, 1.0, 1.0)
    assert lazy["score"] == pytest.approx(2 / 3)
    assert lazy["stderr"] == pytest.approx((1 / 3) ** 0.5 / 3**0.5)  # sample deviation of 0, 1, 1
    assert lazy["ttft_s"] == pytest.approx(0.2)
    assert lazy["speedup"] == pytest.approx(2.0)
    assert lazy["ideal_speedup"] == pytest.approx(2.0)
    assert lazy["same_as_dense"] == pytest.approx(2 / 3)


def test_rows_of_a_table_are_about_the_same_prompts(tmp_path: Path) -> None:
    rows = [row("dense", 0), row("lazy", 0), row("dense", 1, score=0.0)]
    rows += [row("dense", 0, length=4096), row("lazy", 1, length=4096)]
    found = content(rows, tmp_path)
    assert [(cell["policy"], cell["length"], cell["n"], cell["score"]) for cell in found["cells"]] == [
        ("dense", 1024, 1, 1.0),
        ("lazy", 1024, 1, 1.0),
    ]
    assert found["left_out"] == 3


def test_without_the_dense_model_there_is_no_measured_speed_up(tmp_path: Path) -> None:
    (cell,) = content([row("lazy")], tmp_path)["cells"]
    assert cell["speedup"] is None and cell["same_as_dense"] is None and cell["stderr"] is None


def test_a_line_has_a_score_per_task_and_means_of_the_rest(tmp_path: Path) -> None:
    rows = [row("lazy"), row("lazy", task="quote", score=0.0), row("lazy", length=4096)]
    found = content(rows, tmp_path)
    (line,) = report.lines(found, 1024)
    assert line["scores"] == {"facts": 1.0, "quote": 0.0} and line["mean"] == 0.5
    assert report.texts(line, ["facts", "quote"]) == [
        "lazy 8:0.25", "1", "100", "0", "50.0", "200 ms", "", "2.00x", "60%",
    ]  # fmt: skip
    assert report.lengths(found) == [1024, 4096]


def test_a_run_that_was_stored_before_agreement_was_measured_has_its_old_table(tmp_path: Path) -> None:
    found = content([row("dense"), row("lazy")], tmp_path)
    new = {f"{name}{end}" for name in report.MEASURES for end in ("", "_interval")} - {"same_as_dense"}
    del found["overall"]
    found["cells"] = [{k: v for k, v in cell.items() if k not in new} for cell in found["cells"]]
    heads, rows = report.rows_of(found, 1024)
    assert heads == ["policy", "n", "facts", "mean", "TTFT", "speed-up", "FLOP-ideal", "computed"]
    assert rows[1] == ["lazy 8:0.25", "1", "100", "100.0", "200 ms", "1.00x", "2.00x", "60%"]
    assert report.legend(found, 1024) is None


def test_a_difference_that_chance_may_explain_is_marked(tmp_path: Path) -> None:
    rows = [row("dense", i, nats_rise=0.0) for i in range(20)]
    rows += [row("lazy", i, score=float(i != 3), nats_rise=0.3 + 0.01 * i) for i in range(20)]
    rows += [row("random", i, score=0.0, nats_rise=2.0) for i in range(20)]
    found = content(rows, tmp_path)
    heads, (dense, lazy, random) = report.rows_of(found, 1024)
    against, nats = heads.index("against dense"), heads.index("nats a token")
    assert (dense[against], dense[nats]) == ("", "")
    assert lazy[against] == "-5.0 [-15.0, +0.0]~" and lazy[heads.index("facts")] == "95~"
    assert lazy[nats].startswith("+0.395 [+0.3") and not lazy[nats].endswith("~")
    assert random[against] == "-100.0 [-100.0, -100.0]" and random[heads.index("facts")] == "0"
    assert report.legend(found, 1024) == report.LEGEND


def test_each_task_has_its_own_difference_and_interval(tmp_path: Path) -> None:
    rows = [row("dense", i, task=task, nats_rise=0.0) for task in ("facts", "set/kv") for i in range(20)]
    rows += [row("lazy", i, score=float(i != 3), nats_rise=0.0, answer="x" if i else "y") for i in range(20)]
    rows += [row("lazy", i, task="set/kv", score=0.0, nats_rise=0.5) for i in range(20)]
    heads, (dense, lazy) = report.rows_by_task(content(rows, tmp_path), 1024)
    assert heads == ["policy", "n", "facts", "nats a token", "same", "kv", "nats a token", "same", "FLOP-ideal"]
    assert dense[:4] == ["dense", "20", "100.0", ""] and dense[5:7] == ["100.0", ""]
    assert lazy[2:4] == ["-5.0 [-15.0, +0.0]~", "+0.000 [+0.000, +0.000]~"]
    assert lazy[5:7] == ["-100.0 [-100.0, -100.0]", "+0.500 [+0.500, +0.500]"] and lazy[8] == "2.00x"
