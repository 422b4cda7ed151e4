"""Every command with a model that others have trained, and its small budgets: answers, measures and schedules."""

import io
import json
import sys
from pathlib import Path

import pytest

from lazymlx.calibrate import looking, loss
from lazymlx.cli.main import main
from lazymlx.eval import unlabelled

TEXT = (Path(__file__).parents[2] / "lazymlx" / "eval" / "texts" / "bees.txt").read_text(encoding="utf-8")
QUESTION = "What animals is the text about?"


def test_chat_reads_a_document_and_answers_from_it(folder, tmp_path, capfd, monkeypatch):
    text = tmp_path / "bees.txt"
    text.write_text(TEXT[:500], encoding="utf-8")
    script = f"/read {text}\n{QUESTION}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script.encode())))
    flags = ["--schedule", "24:0.5", "--min-tokens", "64", "--recent", "8", "--round-to", "1", "-m", "8"]
    assert main(["chat", "--model", str(folder), *flags]) == 0
    captured = capfd.readouterr()
    assert "bees" in captured.out and "kept" in captured.err


def test_generate_answers_from_a_file(shallow, tmp_path, capfd):
    text, statistics = tmp_path / "bees.txt", tmp_path / "stats.json"
    text.write_text(TEXT, encoding="utf-8")
    flags = ["--fast", "--min-tokens", "256", "-m", "4", "--stats-json", str(statistics)]
    assert main(["generate", "--model", str(shallow), "--prompt-file", str(text), "-q", QUESTION, *flags]) == 0
    assert capfd.readouterr().out.strip()
    found = json.loads(statistics.read_text(encoding="utf-8"))["lazy"]
    assert found["schedule"] == "2:0.25" and found["kept"][0] < 900


@pytest.fixture
def small_budgets(monkeypatch):
    monkeypatch.setattr(loss, "ANSWER_TOKENS", 2)
    monkeypatch.setattr(unlabelled, "DENSE_TOKENS", 3)
    monkeypatch.setattr(looking, "TOKENS_A_VALUE", 2)  # of text to fit maps to


def test_eval_holds_policies_against_the_dense_answers(shallow, tmp_path, capfd, small_budgets):
    mine = tmp_path / "mine.txt"
    mine.write_text(f"{TEXT[:900].replace(chr(10), ' ')} {QUESTION}\n{TEXT[900:1800].replace(chr(10), ' ')} Why?\n")
    flags = ["--data", str(mine), "--reference", "dense", "--policies", "dense,lazy,lexical", "--schedules", "1:0.3"]
    asked = ["eval", "--model", str(shallow), "--lazy", "on", "--out", str(tmp_path / "run"), "--no-plot", *flags]
    assert main(asked) == 0
    content = json.loads(Path(json.loads(capfd.readouterr().out)["file"]).read_text(encoding="utf-8"))
    dense, lazy, lexical = content["cells"]
    assert (dense["nats_rise"], dense["same_as_dense"], dense["n"]) == (0, 1, 2)
    assert lazy["ideal_speedup"] > 1 and lexical["nats_rise"] != 0


def test_a_schedule_is_calibrated_on_it_and_used(shallow, tmp_path, capfd, small_budgets):
    out = tmp_path / "found.json"
    budget = ["--lengths", "256", "--kinds", "prose", "--prompts", "1", "--checks", "6", "--max-loss", "9"]
    assert main(["calibrate", "--model", str(shallow), *budget, "--out", str(out)]) == 0
    captured = capfd.readouterr()
    assert "this takes about" in captured.err and "in every kind with 95% confidence" in captured.err
    found = json.loads(out.read_text(encoding="utf-8"))
    assert captured.out == f"{found['schedule']}\n" and found["speedup"] > 1
    flags = ["--schedule", str(out), "--lazy", "on", "-m", "1", "--verbose", "False"]
    assert main(["generate", "--model", str(shallow), "-p", TEXT[:600], *flags]) == 0
