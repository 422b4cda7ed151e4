"""`/set` and `/model`: what a chat can change without being left."""

import io
import re
import sys
from pathlib import Path

import pytest
from mlx_lm.sample_utils import make_logits_processors
from model_folder import write_model

from lazymlx import Session, load
from lazymlx.cli.main import main

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def chat(tiny_model_folder: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch):
    def run(*lines: str, flags: tuple[str, ...] = (), code: int = 0) -> tuple[list[str], str]:
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["chat", "--model", str(tiny_model_folder), "-m", "6", *flags]) == code
        out, err = capsys.readouterr()
        return out.splitlines(), err

    return run


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("/set max-tokens 3", ("-m", "3")),
        ("/set temperature 40", ("--temp", "40")),
        ("/set system Be  brief.", ("--system-prompt", "Be  brief.")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_set_is_what_a_flag_would_have_said(chat, line: str, flags: tuple[str, ...]) -> None:
    asked = ("Who?", "Which one?")
    assert chat("/set seed 7", line, *asked)[0] == chat("/set seed 7", *asked, flags=flags)[0] != chat(*asked)[0]


def test_alone_it_lists_what_there_is(chat) -> None:
    _, err = chat("/set top-p 0.25", "/set top-p")
    assert err.splitlines()[-1] == "top-p 0.25"
    _, err = chat("/set temperature 0.5", "/set")
    assert "temp 0.5 from now on" in err
    assert re.search(r"^temp 0\.5$", err, re.M)
    assert re.search(r"^max-tokens 6$", err, re.M)
    assert re.search(r"^system-prompt \(none\)$", err, re.M)


@pytest.mark.parametrize(
    "words", ["heat 3", "heat", "temp warm", "temp -1", "top-k 9999999", "model x", "max-memory 1"]
)
def test_what_makes_no_sense_is_one_line_and_changes_nothing(chat, words: str) -> None:
    straight, _ = chat("Who?")
    out, err = chat(f"/set {words}", "Who?", code=2)
    assert out == straight and err.count("error: ") == 1


def test_another_model_begins_a_new_conversation(chat, tmp_path: Path, tiny_model_folder: Path) -> None:
    other = write_model(tmp_path / "other", intermediate_size=32)
    out, err = chat(
        "Who?", "/model", f"/model {other}", "/stats", "Who?", "/model", f"/model {tiny_model_folder}", "Who?"
    )
    assert out[0] == out[2] != out[1]
    assert "Conversation: 0 tokens" in err
    assert re.search(rf"^{tiny_model_folder}$", err, re.M) and re.search(rf"^{other}$", err, re.M)


def test_a_model_that_cannot_be_had_leaves_the_one_before(chat) -> None:
    out, err = chat("Who?", "/model /nowhere/at/all", "/retry", code=2)
    assert out[0] == out[1] and "no folder /nowhere/at/all" in err


@pytest.mark.parametrize("penalty", ["repetition-penalty 1000", "presence-penalty 2", "frequency-penalty 2"])
def test_penalties_are_those_of_mlx_lm(chat, penalty: str, tiny_model_folder: Path, capsys: Streams) -> None:
    """In a chat and in generate alike, which then say what mlx-lm's processors would have said."""
    name, value = penalty.split()
    flags = (f"--{name}", value, f"--{name.split('-')[0]}-context-size", "50")
    session = Session(*load(str(tiny_model_folder)))
    penalties = make_logits_processors(
        **{name.replace("-", "_"): float(value), f"{name.split('-')[0]}_context_size": 50}
    )
    expected = "".join(each.text for each in session.ask("Who who who?", 40, logits_processors=penalties))
    asked = ("Who who who?",)
    assert "\n".join(chat(*asked, flags=(*flags, "-m", "40"))[0]) == expected
    if name == "repetition-penalty":  # the weights are random: the others change few choices
        assert expected != "\n".join(chat(*asked, flags=("-m", "40"))[0])
    set_ = [f"/set {flags[i].removeprefix('--')} {flags[i + 1]}" for i in (0, 2)]
    assert "\n".join(chat(*set_, *asked, flags=("-m", "40"))[0]) == expected
    assert main(["generate", "--model", str(tiny_model_folder), "-p", asked[0], "-m", "40", *flags]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
