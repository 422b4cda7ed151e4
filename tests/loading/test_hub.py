"""Models by their Hub name, without the internet: a fake Hub on loopback serves, breaks off, and refuses."""

import os
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repository, commit_of, with_hub
from model_folder import write_model

MODEL = {"config.json": b'{"a": 1}', "model.safetensors": b"weights", "README.md": b"not fetched"}
LARGE = bytes(range(256)) * (96 << 10)  # 24 MiB: huggingface_hub writes and resumes in units of 10 MB


@pytest.fixture
def hub():
    hub = FakeHub()
    yield hub
    hub.close()


def find(hub: FakeHub, home: Path, name: str, revision: str | None = None, **environment: str) -> Path:
    code = f"from lazymlx.loading.hub import find; print(find({name!r}, {revision!r}), end='')"
    done = with_hub(hub, home, code, **environment)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout)


def refusal(hub: FakeHub, home: Path, code: str, **environment: str) -> str:
    """The error that code ends with, as the command line would print it: its class and its one line."""
    done = with_hub(
        hub,
        home,
        f"from lazymlx.errors import LazyMLXError\n"
        f"try:\n    {code}\nexcept LazyMLXError as e:\n    print(type(e).__name__, e, end='')",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout and "\n" not in done.stdout
    return done.stdout


def no_find(hub: FakeHub, home: Path, name: str, revision: str | None = None, **environment: str) -> str:
    return refusal(hub, home, f"from lazymlx.loading.hub import find; find({name!r}, {revision!r})", **environment)


def test_a_model_is_fetched_once_and_found_offline(hub, tmp_path):
    hub.repositories["org/model"] = Repository({"main": MODEL})
    folder = find(hub, tmp_path, "org/model")
    assert folder.is_relative_to(tmp_path)  # HF_HOME
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    hub.requests.clear()
    assert find(hub, tmp_path, "org/model") == folder
    assert not hub.downloads("model.safetensors")
    hub.requests.clear()
    assert find(hub, tmp_path, "org/model", HF_HUB_OFFLINE="1") == folder
    assert not hub.requests


def test_a_fetched_model_is_found_when_the_hub_is_gone(hub, tmp_path):
    hub.repositories["org/model"] = Repository({"main": MODEL})
    folder = find(hub, tmp_path, "org/model")
    hub.repositories["org/model"].status = 503
    assert find(hub, tmp_path, "org/model") == folder


def test_revisions(hub, tmp_path):
    """By branch or tag, and by commit."""
    hub.repositories["org/model"] = Repository({"main": MODEL, "v2": {**MODEL, "config.json": b"{}"}})
    second = find(hub, tmp_path, "org/model", "v2")
    assert (second / "config.json").read_bytes() == b"{}"
    assert find(hub, tmp_path, "org/model", commit_of("v2")) == second
    assert find(hub, tmp_path, "org/model") != second
    assert "ModelError model: org/model has no revision 'v3'" in no_find(hub, tmp_path, "org/model", "v3")


def test_a_broken_transfer_is_resumed(hub, tmp_path):
    """What had arrived is not sent again."""
    breaks = {"model.safetensors": 1}
    hub.repositories["org/model"] = Repository({"main": {**MODEL, "model.safetensors": LARGE}}, breaks=breaks)
    folder = find(hub, tmp_path, "org/model")
    assert (folder / "model.safetensors").read_bytes() == LARGE
    first, second = hub.downloads("model.safetensors")
    assert first == ""
    assert second.startswith("bytes=") and 0 < int(second.removeprefix("bytes=").rstrip("-")) <= len(LARGE) // 2


def test_a_transfer_that_keeps_breaking_is_an_error_and_the_next_try_goes_on(hub, tmp_path):
    hub.repositories["org/model"] = Repository({"main": MODEL}, breaks={"model.safetensors": 1000})
    message = no_find(hub, tmp_path, "org/model")
    assert message.startswith("RunError model: the download of org/model failed (")
    assert message.endswith("run the command again, files that are complete will not be fetched twice")
    hub.repositories["org/model"].breaks.clear()
    hub.requests.clear()
    folder = find(hub, tmp_path, "org/model")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not hub.downloads("config.json")


REFUSALS = {
    "gated": (Repository({}, 401, "GatedRepo"), "model: org/model is gated; accept its licence on the Hub and log in"),
    "missing": (Repository({}, 404, "RepoNotFound"), "model: no folder and no Hub repository org/model; check the"),
    "private": (Repository({}, 401, "RepoNotFound"), "model: no folder and no Hub repository org/model; check the"),
    "bad token": (Repository({}, 401), "model: the Hub does not let you read org/model; log in with 'hf auth login'"),
    "weak token": (Repository({}, 403), "model: the Hub does not let you read org/model; log in with 'hf auth login'"),
    "busy": (
        Repository({}, 429),
        "model: org/model is no folder and not in the Hub's cache, and the Hub cannot be reached (it answers 429); ",
    ),
    "GGUF only": (
        Repository({"main": {"model.gguf": b""}}),
        "model: the Hub's repository org/model has no config.json and no model*.safetensors",
    ),
    "down": (Repository({}, 503), "model: org/model is no folder and not in the Hub's cache, and the Hub cannot be"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_to_do(hub, tmp_path, case):
    hub.repositories["org/model"], message = REFUSALS[case]
    assert no_find(hub, tmp_path, "org/model").startswith(f"ModelError {message}")


def test_offline_a_model_that_was_not_fetched_is_refused(hub, tmp_path):
    hub.repositories["org/model"] = Repository({"main": MODEL})
    message = no_find(hub, tmp_path, "org/model", HF_HUB_OFFLINE="1")
    assert "not in the Hub's cache" in message and "unset HF_HUB_OFFLINE" in message
    assert not hub.requests


@pytest.mark.parametrize("name", ["model", "a/b/c", "./org/model", "~/model", "/org/model"])
def test_what_is_no_name_is_not_asked_for(hub, tmp_path, name):
    assert f"ModelError model: no folder {name}; expected a local folder, a Hub name" in no_find(hub, tmp_path, name)
    assert not hub.requests


def test_a_repository_without_safetensors_is_refused(hub, tmp_path):
    hub.repositories["org/model"] = Repository({"main": {"config.json": b"{}", "weights.npz": b"old"}})
    message = refusal(hub, tmp_path, "import lazymlx; lazymlx.load('org/model')")
    assert message.startswith("ModelError model: ") and "has no model*.safetensors" in message
    assert not hub.downloads("weights.npz")


def test_load_by_name(hub, tmp_path):
    """From the Hub to a model that answers; a second time offline."""
    folder = write_model(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories["org/model"] = Repository({"main": {}, "v2": files})
    code = (
        "import lazymlx; model, tokenizer = lazymlx.load('org/model', revision='v2'); "
        "print(lazymlx.generate(model, tokenizer, 'hello', max_tokens=3), end='')"
    )
    first = with_hub(hub, tmp_path / "home", code)
    assert first.returncode == 0 and first.stdout, first.stderr
    hub.requests.clear()
    again = with_hub(hub, tmp_path / "home", code, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr
    assert not hub.requests


def test_other_tests_are_offline():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
