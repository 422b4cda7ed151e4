"""`lazymlx eval` as a person uses it, on a tiny random model."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from model_folder import VOCAB, write_model

from lazymlx.cli.main import main
from lazymlx.eval import prose, published, structured, unlabelled
from lazymlx.eval.agreement import agreement
from lazymlx.files import write_json
from lazymlx.loading import stored as schedules

LENGTH = "256"
KV_TOKENS = 12
SMALL = ["--lengths", LENGTH, "--lazy", "on", "--recent", "8", "--no-plot"]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights have nothing to say, and say it at length."""
    for module, name in ((prose, "FACT_TOKENS"), (structured, "VALUE_TOKENS"), (unlabelled, "DENSE_TOKENS")):
        monkeypatch.setattr(module, name, 6)
    monkeypatch.setattr(published, "KV_TOKENS", KV_TOKENS)


def evaluate(folder: Path, model: Path, *flags: str) -> int:
    return main(["eval", "--model", str(model), "--out", str(folder), "--schedule", "3:0.3", *SMALL, *flags])


def answers(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_policy_answers_every_task(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--tasks", "followup", "--n", "1", "--draft-model", str(tiny_model_folder), "--commit", "abc"]
    assert evaluate(tmp_path / "run", tiny_model_folder, *flags) == 0
    captured = capsys.readouterr()
    line = json.loads(captured.out)
    assert (line["complete"], line["answers"]) == (True, 9)
    assert "specprefill 0.3" in captured.err and "FLOP-ideal" in captured.err
    content = json.loads(Path(line["file"]).read_text(encoding="utf-8"))
    assert content["kind"] == "lazymlx quality" and content["machine"]["commit"] == "abc"
    assert len(content["cells"]) == 9
    assert {cell["n"] for cell in content["cells"]} == {1}
    found = answers(tmp_path / "run")
    assert all(row["prompt_tokens"] >= int(LENGTH) for row in found)
    assert all(row["follow_up_ttft_s"] > 0 for row in found)


def test_several_points_make_a_line(tmp_path: Path, tiny_model_folder: Path) -> None:
    flags = ["--tasks", "kv", "--policies", "lazy,lexical", "--schedules", "3:0.5", "2:0.6,4:0.2", "--n", "1"]
    assert evaluate(tmp_path, tiny_model_folder, *flags, "--keeps", "0.7,0.8,0.9") == 0
    assert [row["point"] for row in answers(tmp_path)] == ["3:0.5", "2:0.6,4:0.2", "0.7", "0.8", "0.9"]


def test_a_file_is_asked_instead_of_the_tasks(tmp_path: Path, tiny_model_folder: Path) -> None:
    data = tmp_path / "kv.jsonl"
    pairs = [[f"k{i}", f"v{i}"] for i in range(60)]
    data.write_text(json.dumps({"ordered_kv_records": pairs, "key": "k2", "value": "v2"}), encoding="utf-8")
    flags = ["--data", str(data), "--policies", "dense,static", "--n", "5"]
    assert evaluate(tmp_path / "run", tiny_model_folder, *flags) == 0
    assert [(row["task"], row["policy"]) for row in answers(tmp_path / "run")] == [
        ("lost-in-the-middle/kv-60", "dense"),
        ("lost-in-the-middle/kv-60", "static"),
    ]


@pytest.fixture(scope="module")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 400 positions."""
    return write_model(tmp_path_factory.mktemp("short"), max_position_embeddings=400)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """What transformers says."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [handler])
    return said


def test_what_is_longer_than_the_models_positions_is_refused_before_anything_is_asked(
    tmp_path: Path, short_model: Path, capsys: pytest.CaptureFixture, others: list[logging.LogRecord]
) -> None:
    data = tmp_path / "mine.txt"
    data.write_text(f"Who?\n{'word ' * 398}\n{'Q ' * 9000}\n{'x' * 10_000_000}\n", encoding="utf-8")
    flags = ["--policies", "dense", "--reference", "dense", "--data", str(data)]
    assert evaluate(tmp_path / "run", short_model, *flags) == 2
    said = capsys.readouterr().err
    assert "--data: 3 of 4 prompts are longer than the model's 400 positions" in said
    assert "the first is line 2 of prompts/mine; leave such lines out" in said and said.count("\n") == 1
    assert not others
    assert main(["eval", "--model", str(short_model), "--lengths", "300,512", "--out", str(tmp_path / "run")]) == 2
    assert "--lengths: the model has 400 positions, got 512; leave out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_longbench_prompts_lose_their_middle_and_that_is_said(
    tmp_path: Path, short_model: Path, capsys: pytest.CaptureFixture
) -> None:
    data, line = tmp_path / "data.jsonl", {"dataset": "hotpotqa", "input": "Who?", "answers": ["Ann"]}
    lines = [json.dumps({**line, "context": "word " * count}) for count in (600, 20)]
    data.write_text("\n".join(lines), encoding="utf-8")
    assert evaluate(tmp_path / "run", short_model, "--data", str(data), "--policies", "dense") == 0
    assert "1 of 2 prompts are longer than the model's 400 positions and lose their middle" in capsys.readouterr().err
    long, short = (row["prompt_tokens"] for row in answers(tmp_path / "run"))
    assert (long, short < 200) == (400 - 32, True)


def test_prompts_without_answers_are_held_against_the_dense_model(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.txt").write_text(f"{'word ' * 300}\nWho?\n", encoding="utf-8")
    (tmp_path / "more.jsonl").write_text(json.dumps({"prompt": "Two\nlines?"}), encoding="utf-8-sig")
    flags = ["--data", str(tmp_path / "mine.txt"), str(tmp_path / "more.jsonl"), "--policies", "dense,lexical"]
    assert evaluate(tmp_path / "run", tiny_model_folder, *flags, "--reference", "dense") == 0
    found = answers(tmp_path / "run")
    in_turn = ["prompts/mine", "prompts/more", "prompts/mine"]
    assert [row["task"] for row in found] == [task for task in in_turn for _ in range(2)]
    assert found[2]["question"] == "Two\nlines?"
    for row in found:
        assert row["score"] == row["f1_to_dense"] and len(row["references"]) == 1
        assert row["policy"] != "dense" or (row["score"], row["first_agrees"]) == (1.0, True)
    assert "nats a token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"One?\n \nTwo?", "a.txt, line 2: holds no prompt; remove the line"),
        ("a.txt", b"", "a.txt holds no prompts"),
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
        ("a.md", b"One?", "expected a file that ends in .txt or .jsonl"),
        ("a.jsonl", b'{"text": "One?"}', "line 1: field 'prompt' is missing"),
        ("a.jsonl", b'{"prompt": "One?"}\n\n', "line 2: not JSON"),
        ("a.jsonl", b'{"prompt": 7}', "field 'prompt' must be a string, got a number"),
    ],
)
def test_a_bad_file_of_prompts_is_refused_before_a_model_is_loaded(
    name: str, content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    flags = ["eval", "--model", "no/such-model", "--out", str(tmp_path / "run"), "--reference", "dense", "--data"]
    assert main([*flags, str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_an_interrupted_run_is_kept_and_goes_on(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--tasks", "facts,kv", "--policies", "dense,lazy", "--n", "1"]
    asked = []

    def judge_three(*given):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(given)
        return agreement(*given)

    with monkeypatch.context() as patch:
        patch.setattr("lazymlx.eval.run.agreement", judge_three)
        assert evaluate(tmp_path, tiny_model_folder, *flags) == 130
    captured = capsys.readouterr()
    assert "interrupted; what is done is kept" in captured.err and "--resume" in captured.err
    assert "note: 1 answers are in no table" in captured.err
    assert json.loads(captured.out)["complete"] is False
    before = answers(tmp_path)
    assert len(before) == 3
    assert evaluate(tmp_path, tiny_model_folder, *flags, "--resume") == 0
    after = answers(tmp_path)
    assert after[:3] == before and len(after) == 4
    assert len({(row["task"], row["index"], row["policy"]) for row in after}) == 4
    whole = tmp_path / "whole"
    assert evaluate(whole, tiny_model_folder, *flags) == 0
    assert [row["answer"] for row in answers(whole)] == [row["answer"] for row in after]


def test_where_there_is_no_bar_the_time_left_is_said(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazymlx.cli.pace.EVERY", 0.0)
    flags = ["--tasks", "facts", "--policies", "dense,lazy", "--n", "1"]
    assert evaluate(tmp_path, tiny_model_folder, *flags) == 0
    assert re.search(r"^lazymlx: 1 of 2 done, about \d+ seconds left$", capsys.readouterr().err, re.MULTILINE)


def test_a_spent_budget_is_no_failure(tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--tasks", "kv", "--policies", "dense", "--n", "2"]
    assert evaluate(tmp_path, tiny_model_folder, *flags, "--budget-s", "0") == 0
    assert "the time was up" in capsys.readouterr().err
    assert evaluate(tmp_path, tiny_model_folder, *flags, "--resume") == 0
    assert len(answers(tmp_path)) == 2


def test_a_failure_of_the_device_keeps_what_is_done(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_):
        raise RuntimeError("[malloc] Unable to allocate")

    monkeypatch.setattr("lazymlx.eval.run.agreement", fail)
    assert evaluate(tmp_path, tiny_model_folder, "--tasks", "facts", "--policies", "dense") == 1
    assert "stopped by an error: [malloc] Unable to allocate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tasks", "facts,none"], "--tasks: there is no task 'none'; tasks are facts, multikey, kv"),
        (["--policies", "dens"], "--policies: there is no policy 'dens'; policies are dense, lazy, lazyllm"),
        (["--policies", "specprefill"], "--policies: specprefill needs a draft model; name one with --draft-model"),
        (["--lengths", "64"], "--lengths: must be at least 256 tokens, got 64"),
        (["--lengths", "many"], "argument --lengths: expected whole numbers such as 1024 or 4k, got 'many'"),
        (["--keeps", "0,1"], "must be above 0 and at most 1, got 0,1"),
        (["--data", "none.jsonl"], "--data: none.jsonl cannot be read: No such file or directory"),
        (["--out", "/dev/null/run"], "--out: /dev/null is no folder"),
        (["--reference", "dense"], "--reference dense: name files of prompts with --data"),
        (["--reference", "dense", "--tasks", "kv", "--data", "a.txt"], "generated tasks have right answers"),
        (["--n", "0"], "must be at least 1, got 0"),
        (["--lengths", ""], "argument --lengths: expected names or numbers with commas between them, got ''"),
        (["--policies", ","], "argument --policies: expected names or numbers with commas between them, got ','"),
        (["--schedules", "x"], "schedule: expected 'layer:keep,...'"),
    ],
)
def test_bad_requests_are_refused_before_a_model_is_loaded(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["eval", "--model", "no/such-model", "--out", str(tmp_path / "run"), *flags]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_the_settings_that_a_calibration_brings_are_kept_with_the_answers(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = {
        "schedule": "3:0.3",
        "pool": 5,
        "window": 4,
        "fingerprint": schedules.folder_fingerprint(tiny_model_folder),
    }
    write_json(schedules.user_file(tiny_model_folder), record, "schedule")
    flags = ["eval", "--model", str(tiny_model_folder), "--tasks", "facts", "--policies", "lazy", "--n", "1"]
    assert main([*flags, "--lengths", LENGTH, "--no-plot", "--window", "16", "--out", str(tmp_path / "run")]) == 0
    kept = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))["lazy"]
    assert (kept["pool"], kept["window"]) == (5, 16)  # what was asked for stays, though it is the default
    assert answers(tmp_path / "run")[0]["point"] == "3:0.3"


def test_a_calibration_of_another_quantisation_is_refused(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    packed, found = tmp_path / "packed", tmp_path / "found.json"
    shutil.copytree(tiny_model_folder, packed)
    config = json.loads((packed / "config.json").read_text(encoding="utf-8"))
    config["quantization"] = {"group_size": 32, "bits": 4}
    (packed / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_json(found, {"schedule": "3:0.3", "fingerprint": schedules.folder_fingerprint(packed)}, "--out")
    flags = ["eval", "--model", str(tiny_model_folder), "--schedule", str(found), "--out", str(tmp_path / "run")]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert "found.json was calibrated for another model, other weights or another quantisation" in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_an_answer_to_another_question_is_not_taken_for_this_ones(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    data, pairs = tmp_path / "kv.jsonl", [["k1", "v1"], ["k2", "v2"]]
    flags = ["--data", str(data), "--policies", "dense", "--resume"]
    for key, code in (("k1", 0), ("k1", 0), ("k2", 2)):
        line = {"ordered_kv_records": pairs, "key": key, "value": key.replace("k", "v")}
        data.write_text(json.dumps(line), encoding="utf-8")
        assert evaluate(tmp_path / "run", tiny_model_folder, *flags) == code
    assert "--resume: line 1 of lost-in-the-middle/kv-2 was another question" in capsys.readouterr().err
    assert len(answers(tmp_path / "run")) == 1


def test_a_layer_outside_of_the_model_is_refused(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(tmp_path, tiny_model_folder, "--layer", "6") == 2
    assert "--layer: must be below the model's 6 layers, got 6" in capsys.readouterr().err


def test_single_selections_need_something_to_go_by(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert evaluate(tmp_path, tiny_model_folder, "--schedules", "dense") == 2
    assert "give one with a cut, or --layer and --keeps" in capsys.readouterr().err


def test_a_draft_with_another_tokenizer_is_refused(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    other = write_model(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    added = {**tokenizer["added_tokens"][0], "id": VOCAB, "content": "<|another|>"}
    tokenizer["added_tokens"].append(added)
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert evaluate(tmp_path / "run", tiny_model_folder, "--draft-model", str(other)) == 2
    shared = f"it shares {VOCAB} of its {VOCAB + 1} tokens with the model's {VOCAB}"
    assert f"--draft-model: its tokenizer is another one ({shared})" in capsys.readouterr().err


def test_a_run_goes_on_with_the_same_weights_alone(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Under the same name, too."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    flags = ["eval", "--model", str(folder), "--tasks", "facts", "--policies", "dense", "--n", "1", *SMALL]
    flags += ["--out", str(tmp_path / "run")]
    assert main(flags) == 0
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert main([*flags, "--resume"]) == 2
    assert "--resume: " in (said := capsys.readouterr().err) and "weights was" in said
