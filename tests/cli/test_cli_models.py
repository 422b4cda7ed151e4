"""`lazymlx models`: what is on this machine, and what is said to whoever has nothing."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from model_folder import write_model

from lazymlx.cli.main import main
from lazymlx.loading.pretrained import fetched_folder
from lazymlx.loading.stored import folder_fingerprint, user_file

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, and one of ours."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


def place(cached: Path, name: str, revision: str = "a" * 40, kind: str = "models") -> Path:
    """Where a revision of a repository lies, which is its main branch."""
    repository = cached / f"{kind}--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def test_models_are_listed(cached: Path, capsys: Streams) -> None:
    write_model(place(cached, "org/older", "b" * 40))
    write_model(fetched_folder("smollm2"))
    good = write_model(place(cached, "org/good"), model_type="qwen2")
    (place(cached, "org/mamba") / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    (good.parents[2] / "models--org--mamba" / "snapshots" / ("a" * 40) / "model.safetensors").write_bytes(bytes(64))
    (place(cached, "org/half") / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    shards = write_model(place(cached, "org/shards"))
    names = {f"weight{n}": f"model-{n}-of-2.safetensors" for n in (1, 2)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")
    (shards / "model.safetensors").rename(shards / "model-1-of-2.safetensors")
    cut = write_model(place(cached, "org/cut")) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    (place(cached, "org/words", kind="datasets") / "config.json").write_text("{}", encoding="utf-8")
    place(cached, "org/nothing")
    user_file(good).parent.mkdir(parents=True)
    stored = {"schedule": "3:0.5", "fingerprint": folder_fingerprint(good)}
    user_file(good).write_text(json.dumps(stored), encoding="utf-8")
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    header, *rows = (line.split() for line in out.splitlines())
    assert header == ["model", "size", "type", "served", "schedule"]
    assert [(name, *rest) for name, _, _, *rest in rows] == [
        ("org/cut", "llama", "no", "-"),
        ("org/good", "qwen2", "yes", "3:0.5"),
        ("org/half", "llama", "no", "-"),
        ("org/mamba", "mamba", "no", "-"),
        ("org/older", "llama", "yes", "-"),
        ("org/shards", "llama", "no", "-"),
        ("smollm2", "llama", "yes", "-"),
    ]
    assert "org/mamba: model: type 'mamba' is not supported: " in err and "org/half: model: " in err
    assert "has no model-2-of-2.safetensors, which its model.safetensors.index.json names" in err
    assert "its end is missing" in err
    assert all(f"{size} GB" in err for size in (8, 16, 32))


def test_without_a_model_it_says_how_to_get_one(cached: Path, capsys: Streams) -> None:
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "'lazymlx models get smollm2'" in err


def test_what_is_there_is_not_fetched(cached: Path, capsys: Streams) -> None:
    folder = write_model(fetched_folder("smollm2"))
    assert main(["models", "get", "smollm2"]) == 0
    assert capsys.readouterr() == (f"{folder}\n", "")
    on_hub = write_model(place(cached, "org/good"))
    assert main(["models", "get", "org/good"]) == 0
    assert capsys.readouterr().out == f"{on_hub}\n"


@pytest.mark.parametrize(
    "words, reason",
    [
        (["get"], "required: NAME"),
        (["fetch"], "invalid choice: 'fetch'"),
        (["get", "nothing"], "expected a local folder, a Hub name such as mlx-community/NAME, or smollm2"),
        (["get", "org/model", "--to", "here"], "--to: org/model goes to the Hub's cache"),
        (["get", "smollm2", "--to", "/dev/null/here"], "/dev/null is no folder"),
    ],
)
def test_mistakes(cached: Path, words: list[str], reason: str, capsys: Streams) -> None:
    assert main(["models", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and reason in err.splitlines()[-1]
