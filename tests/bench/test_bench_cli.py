"""`lazymlx bench` as a person uses it."""

import json
from pathlib import Path

import pytest

from lazymlx.cli.main import main
from lazymlx.errors import RunError

TINY = [
    "bench",
    "--shape",
    "tiny-4x64",
    "--lengths",
    "32,64",
    "--min-tokens",
    "0",
    "--schedules",
    "2:.5",
    "--repeats",
    "1",
]


def test_a_run_ends_with_one_line_of_json_and_leaves_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TINY, "--tokens", "2", "--out", str(tmp_path / "new"), "--commit", "abc123"]) == 0
    captured = capsys.readouterr()
    line = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert {(row["length"], row["variant"]) for row in line["rows"]} == {
        (n, v) for n in (32, 64) for v in ("stock", "dense", "2:.5")
    }
    assert line["complete"] and line["curve"]
    assert "abc123" in captured.err and "TTFT" in captured.err
    stored = Path(line["file"])
    assert sorted(f.suffix for f in stored.parent.iterdir()) == [".json", ".png"]
    assert main(["bench", "--growth", str(stored)]) == 0
    assert "From 32 to 64 tokens" in capsys.readouterr().out


def test_a_spent_budget_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TINY, "--budget-s", "0.000001", "--no-plot", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "the time was up" in captured.err
    assert not json.loads(captured.out)["complete"]


def test_only_some_of_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TINY, "--only", "memory", "--no-plot", "--out", str(tmp_path)]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["kv_bytes"] and row["ttft"] is None


def test_the_models_own_schedule_goes_by_its_cuts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--schedules", "auto", "--only", "memory", "--no-plot", "--out", str(tmp_path)]
    assert main([*TINY, *flags]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][-1]["variant"] == "3:0.25"


def test_shapes_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--shapes"]) == 0
    assert "llama-2-7b" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--shape", "llama-9"], "llama-2-7b"),
        (["--model", "/nowhere"], "/nowhere"),
        (["--model", "/nowhere", "--shape", "tiny-4x64"], "not both"),
        (["--bits", "4"], "shape"),
        (["--lengths", "long"], "lengths"),
        (["--lengths", ""], "lengths"),
        (["--only", "speed"], "ttft"),
        (["--schedules", "early,late"], "late"),
        (["--shape", "tiny-4x64", "--schedules", "8:.5"], "outside of the model"),
        (["--steps", "0"], "steps"),
        (["--steps", "2048,half"], "--steps: expected a whole number or 'whole', got 'half'"),
        (["--own-step", ""], "--own-step: expected a whole number or 'whole', got ''"),
        (["--budget-s", "-1"], "budget"),
        (["--revive", "some"], "revive"),
        (["--revive", "-2"], "revive"),
        (["--growth", "/nowhere.json"], "/nowhere.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags: list[str], expected: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", *flags]) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("lazymlx: error:") and expected in error
    assert captured.out == ""


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert main([*TINY, "--only", "memory", "--out", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "--out" in error and "is no folder" in error and "preparing" not in error


def test_a_full_disk_ends_the_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: dict, flag: str) -> None:
        raise RunError(f"{flag}: {path} could not be written: No space left on device")

    monkeypatch.setattr("lazymlx.cli.bench.write_json", full)
    assert main([*TINY, "--only", "memory", "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("lazymlx: error: --out: ") == captured.err.count("No space left on device") == 1
