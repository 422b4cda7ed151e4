"""A stored run of servers: read, compared, refused."""

import json
from pathlib import Path

import pytest

from lazymlx.bench import serving
from lazymlx.errors import UsageError
from lazymlx.tables import serving as table


def result(server: str, seconds: list[float]) -> dict:
    tokens = {"prompt_tokens": [100, 120, 140], "cached_tokens": [0, 90, 130]}
    return {"server": server, "way": "document first", "ttft_s": seconds, "cpu_s": [None] * 3, **tokens}


@pytest.fixture
def run() -> dict:
    on = {
        "chip": "M9",
        "device": "metal",
        "mlx": "1",
        "mlx_lm": "2",
        "lazymlx": "3",
        "commit": None,
        "date": "2026-11-29T",
    }
    what = {"model": "a model", "tokens": 4096, "max_tokens": 12}
    results = [result("ours", [4, 1, 2]), result("theirs", [5, 3, 6])]
    return {"kind": serving.KIND, "machine": on, "run": what, "results": results}


def test_the_first_question_and_the_median_of_later_ones_are_told(run: dict) -> None:
    run["results"][1]["cpu_s"] = [3, 1, 2]
    ours, theirs = serving.rows(run)
    assert ours == ["document first", "ours", "4.00 s", "1.50 s", "-", "-", "20 tokens"]
    assert theirs[4:6] == ["3.00 s", "1.50 s"]
    lines = table(run).splitlines()
    assert lines[0] == "a model, a document of 4,096 tokens; M9, metal; mlx 1, mlx-lm 2, lazymlx 3 (2026-11-29)"
    assert len(lines) == 6


def test_one_sort_of_conversation_can_be_shown(run: dict) -> None:
    run["results"] += [{**each, "way": "two documents, swapped"} for each in run["results"]]
    assert len(table(run).splitlines()) == 8
    assert [line[:14] for line in table(run, "document", "first").splitlines()[4:]] == ["| document fir"] * 2
    with pytest.raises(UsageError, match="no conversation 'newest'; it has document first, two documents, swapped"):
        table(run, "newest")


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "other"}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="run.json"):
        serving.read(tmp_path / "run.json")


def test_a_run_is_read_as_it_was_stored(tmp_path: Path, run: dict) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert serving.read(tmp_path / "run.json") == run
