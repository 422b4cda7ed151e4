"""A run that is interrupted, wherever and however often, ends with the answers of one that was not."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lazymlx.cli.main import main
from lazymlx.eval import prose, structured
from lazymlx.eval import run as asking
from lazymlx.eval.policies.base import PolicyConversation
from lazymlx.eval.store import Store

pytestmark = pytest.mark.unchecked

FLAGS = ["--tasks", "facts,kv", "--policies", "dense,lazy", "--n", "1", "--lengths", "256", "--lazy", "on"]
PLACES = [(PolicyConversation, "ask"), (PolicyConversation, "force"), (asking, "agreement"), (Store, "add")]


def evaluate(folder: Path, model: Path, *flags: str) -> int:
    return main(
        ["eval", "--model", str(model), "--out", str(folder), "--schedule", "3:0.3", "--no-plot", *FLAGS, *flags]
    )


def texts(folder: Path) -> list[tuple[str, str, str]]:
    lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["task"], row["policy"], row["answer"]) for row in map(json.loads, lines)]


def interrupting(call: Callable[..., Any], spare: int) -> Callable[..., Any]:
    """The same, until Ctrl-C comes once it was called so many times."""
    left = [spare]

    def called(*given, **named):
        found = call(*given, **named)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return found

    return called


@pytest.fixture(autouse=True, scope="module")
def short_answers() -> Iterator[None]:
    """Random weights have nothing to say, and say it at length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prose, "FACT_TOKENS", 4)
        patch.setattr(structured, "VALUE_TOKENS", 4)
        yield


@pytest.fixture(scope="module")
def whole(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    folder = tmp_path_factory.mktemp("whole")
    assert evaluate(folder, tiny_model_folder) == 0
    return texts(folder)


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_wherever_a_run_is_interrupted_it_goes_on_to_the_same_end(
    owner: Any, name: str, tmp_path: Path, tiny_model_folder: Path, whole: list[tuple[str, str, str]], capsys
) -> None:
    codes = []
    for spare in (1, 4, 16, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, interrupting(getattr(owner, name), spare))
            codes.append(evaluate(tmp_path, tiny_model_folder, "--resume"))
        assert "Traceback" not in capsys.readouterr().err
        if codes[-1] == 0:
            break
    assert codes[0] == 130 and codes[-1] == 0
    assert texts(tmp_path) == whole
