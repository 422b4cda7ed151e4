"""Models by their Hub name, without the internet: a fake Hub on loopback serves, breaks off, and refuses."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from unittest.mock import patch

import pytest
from fake_hub import FakeHub, Repository, commit_of, with_hub

import lazymlx
from lazymlx.errors import LazyMLXError, ModelError, RunError
from lazymlx.loading import hub as ours

MODEL = {"config.json": b'{"a": 1}', "model.safetensors": b"weights", "README.md": b"not fetched"}
LARGE = bytes(range(256)) * (96 << 10)  # 24 MiB: huggingface_hub writes and resumes in units of 10 MB


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hub's cache; every test has a repository of its own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def online(hub: FakeHub, home: Path) -> Iterator[Executor]:
    with with_hub(hub, home) as process:
        yield process


@pytest.fixture(scope="module")
def offline(hub: FakeHub, home: Path) -> Iterator[Executor]:
    with with_hub(hub, home, HF_HUB_OFFLINE="1") as process:
        yield process


@pytest.fixture
def name(hub: FakeHub, request: pytest.FixtureRequest) -> str:
    """Of the test's repository; nothing has been asked of the Hub yet."""
    hub.requests.clear()
    return f"org/{commit_of(request.node.name)}"


def find(process: Executor, name: str, revision: str | None = None) -> Path:
    return process.submit(ours.find, name, revision).result()


def refusal(process: Executor, name: str, revision: str | None = None) -> str:
    """The error that it ends with, as the command line would print it: its class and its one line."""
    with pytest.raises(LazyMLXError) as refused:
        find(process, name, revision)
    assert "\n" not in str(refused.value)
    return f"{refused.type.__name__} {refused.value}"


def test_a_model_is_fetched_once_and_found_offline(hub, home, online, offline, name):
    hub.repositories[name] = Repository({"main": MODEL})
    folder = find(online, name)
    assert folder.is_relative_to(home)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    hub.requests.clear()
    assert find(online, name) == folder
    assert not hub.downloads("model.safetensors")
    hub.requests.clear()
    assert find(offline, name) == folder
    assert not hub.requests


def test_a_fetched_model_is_found_when_the_hub_is_gone(hub, online, name):
    hub.repositories[name] = Repository({"main": MODEL})
    folder = find(online, name)
    hub.repositories[name].status = 503
    assert find(online, name) == folder


def test_revisions(hub, online, name):
    """By branch or tag, and by commit."""
    hub.repositories[name] = Repository({"main": MODEL, "v2": {**MODEL, "config.json": b"{}"}})
    second = find(online, name, "v2")
    assert (second / "config.json").read_bytes() == b"{}"
    assert find(online, name, commit_of("v2")) == second
    assert find(online, name) != second
    assert f"ModelError model: {name} has no revision 'v3'" in refusal(online, name, "v3")


def test_a_broken_transfer_is_resumed(hub, online, name):
    """What had arrived is not sent again."""
    breaks = {"model.safetensors": 1}
    hub.repositories[name] = Repository({"main": {**MODEL, "model.safetensors": LARGE}}, breaks=breaks)
    folder = find(online, name)
    assert (folder / "model.safetensors").read_bytes() == LARGE
    first, second = hub.downloads("model.safetensors")
    assert first == ""
    assert second.startswith("bytes=") and 0 < int(second.removeprefix("bytes=").rstrip("-")) <= len(LARGE) // 2


def without_pauses(name: str) -> Path:
    """As `find`; between its tries huggingface_hub waits."""
    with patch("time.sleep"):
        return ours.find(name)


def test_a_transfer_that_keeps_breaking_is_an_error_and_the_next_try_goes_on(hub, online, name):
    hub.repositories[name] = Repository({"main": MODEL}, breaks={"model.safetensors": 1000})
    with pytest.raises(RunError) as broken:
        online.submit(without_pauses, name).result()
    assert str(broken.value).startswith(f"model: the download of {name} failed (")
    assert str(broken.value).endswith("run the command again, files that are complete will not be fetched twice")
    hub.repositories[name].breaks.clear()
    hub.requests.clear()
    folder = find(online, name)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not hub.downloads("config.json")


REFUSALS = {
    "gated": (Repository({}, 401, "GatedRepo"), "NAME is gated; accept its licence on the Hub and log in"),
    "missing": (Repository({}, 404, "RepoNotFound"), "no folder and no Hub repository NAME; check the"),
    "private": (Repository({}, 401, "RepoNotFound"), "no folder and no Hub repository NAME; check the"),
    "bad token": (Repository({}, 401), "the Hub does not let you read NAME; log in with 'hf auth login'"),
    "weak token": (Repository({}, 403), "the Hub does not let you read NAME; log in with 'hf auth login'"),
    "busy": (
        Repository({}, 429),
        "NAME is no folder and not in the Hub's cache, and the Hub cannot be reached (it answers 429); ",
    ),
    "GGUF only": (
        Repository({"main": {"model.gguf": b""}}),
        "the Hub's repository NAME has no config.json and no model*.safetensors",
    ),
    "down": (Repository({}, 503), "NAME is no folder and not in the Hub's cache, and the Hub cannot be"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_to_do(hub, online, name, case):
    hub.repositories[name], message = REFUSALS[case]
    assert refusal(online, name).startswith(f"ModelError model: {message.replace('NAME', name)}")


def test_offline_a_model_that_was_not_fetched_is_refused(hub, offline, name):
    hub.repositories[name] = Repository({"main": MODEL})
    message = refusal(offline, name)
    assert "not in the Hub's cache" in message and "unset HF_HUB_OFFLINE" in message
    assert not hub.requests


@pytest.mark.parametrize("given", ["model", "a/b/c", "./org/model", "~/model", "/org/model"])
def test_what_is_no_name_is_not_asked_for(hub, online, name, given):
    assert f"ModelError model: no folder {given}; expected a local folder, a Hub name" in refusal(online, given)
    assert not hub.requests


def test_a_repository_without_safetensors_is_refused(hub, online, name):
    hub.repositories[name] = Repository({"main": {"config.json": b"{}", "weights.npz": b"old"}})
    with pytest.raises(ModelError, match=r"^model: .* has no model\*\.safetensors"):
        online.submit(answer, name, None).result()
    assert not hub.downloads("weights.npz")


def answer(name: str, revision: str | None) -> str:
    model, tokenizer = lazymlx.load(name, revision=revision)
    return lazymlx.generate(model, tokenizer, "hello", max_tokens=3)


def test_load_by_name(hub, online, offline, name, tiny_model_folder):
    """From the Hub to a model that answers; a second time offline."""
    files = {path.name: path.read_bytes() for path in tiny_model_folder.iterdir()}
    hub.repositories[name] = Repository({"main": {}, "v2": files})
    first = online.submit(answer, name, "v2").result()
    assert first
    hub.requests.clear()
    assert offline.submit(answer, name, "v2").result() == first
    assert not hub.requests


def test_other_tests_are_offline():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
