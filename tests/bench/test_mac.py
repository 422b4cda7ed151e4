"""A Mac owner's ten minutes: it runs anywhere, and every figure stands beside its prediction."""

from pathlib import Path
from typing import Any

import pytest
from model_folder import write_model

from lazymlx.bench import mac
from lazymlx.bench.fresh import first_answer_s
from lazymlx.bench.mac import RHYTHMS, ROWS, Figure, Scale, block, measured
from lazymlx.bench.models import random_pair
from lazymlx.cli.main import main
from lazymlx.costs.metal import M3
from lazymlx.errors import RunError

TINY = Scale(inputs=64, outputs=128, matrices=1, keys=64, lengths=(64, 96), tokens=4)
ON: dict[str, Any] = {
    "chip": "Apple M3 Max",
    "architecture": "arm64",
    "macos": "26.2",
    "device": "metal",
    "matrix_units": None,
    "lazymlx": "0.1.0",
    "commit": None,
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "python": "3.12.1",
}


def test_every_figure_of_a_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mac, "REPEATS", 1)
    figures = list(measured(random_pair("tiny-4x64"), M3, TINY, lambda: 7.0))
    assert len({figure.name for figure in figures}) == len(figures) == 3 + len(ROWS) + 4 + 1 + len(RHYTHMS) + 3 * 2
    assert all(figure.measured > 0 for figure in figures)
    predicted = {figure.name: figure.predicted for figure in figures if figure.predicted is not None}
    assert predicted["8 rows (wide vector, 2)"] == 2.5
    assert predicted["decode, 3 come back every 2"] == pytest.approx(1 + 0.75 * 0.94 * 0.45 / 2)
    assert predicted["64 tokens, early faster than dense"] > 1
    assert figures[2] == Figure("first answer of a fresh process", 7.0, None, "s")


def test_the_block_says_how_far_off_a_prediction_was_and_where_it_ran() -> None:
    shown = block([Figure("8 rows", 3.0, 2.5), Figure("first token", 0.5, None, "s")], ON, "llama-3-8b, 4-bit")
    lines = shown.splitlines()
    assert lines[0] == lines[-1] == "```" and "Apple M3 Max, arm64, macOS 26.2, device metal" in shown
    assert lines[-3].split() == ["8", "rows", "3.00", "2.50", "x", "+20%"]
    assert lines[-2].split() == ["first", "token", "0.50", "-", "s"]
    assert "unmeasured" not in shown
    assert "unmeasured on Metal: this ran on cuda" in block([], {**ON, "device": "cuda"}, "x")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mac, "SMALL", TINY)
    monkeypatch.setattr(mac, "REPEATS", 1)
    assert main(["bench", "--mac", "--shape", "tiny-4x64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("```\nlazymlx bench --mac, tiny-4x64\n") and "unmeasured on Metal: this ran on cpu" in out


def test_a_fresh_process_answers(tmp_path: Path) -> None:
    assert first_answer_s(str(write_model(tmp_path / "model"))) > 0
    with pytest.raises(RunError, match="a fresh process did not answer: .*nowhere"):
        first_answer_s(str(tmp_path / "nowhere"))
