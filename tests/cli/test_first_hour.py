"""What someone meets in the first hour: warned before and not after, and told how to go on."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from commands import LAZY, TEXT
from model_folder import write_model

from lazymlx import demo
from lazymlx.cli.main import main

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 positions."""
    return write_model(tmp_path_factory.mktemp("models") / "short", max_position_embeddings=32)


def script(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """The lines of a chat."""
    text = "".join(f"{line}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_an_answer_that_is_cut_off_says_so(tiny_model_folder: Path, book: Path, capsys: Streams, tmp_path: Path):
    model, saved = ["--model", str(tiny_model_folder)], str(tmp_path / "book.lazydoc")
    said = "lazymlx: the answer is cut off after 3 tokens; --max-tokens allows more"
    assert main(["generate", *model, "-p", "hi", "-m", "3"]) == 0
    assert said in capsys.readouterr().err
    assert main(["cache", *model, "--prompt-file", str(book), "-o", saved, *LAZY]) == 0
    assert main(["generate", *model, "--document", saved, "-q", "Who?", "-m", "3"]) == 0
    assert said in capsys.readouterr().err
    assert main(["generate", *model, "-p", "hi", "-m", "3", "--verbose", "F"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", ["--prompt-file", "-p", "-q"])
@pytest.mark.parametrize("command", ["generate", "cache"])
def test_of_two_of_a_flag_none_is_lost(command: str, flag: str, capsys: Streams) -> None:
    if (command, flag) == ("cache", "-q"):
        return
    assert main([command, flag, "one", flag, "two", *(["-o", "x"] if command == "cache" else [])]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "expected once, and it is given twice" in err and flag in err


def before(err: str, first: str, then: str) -> bool:
    return 0 <= err.find(first) < err.find(then)


def test_more_than_the_models_positions_is_said_before_it_is_read(
    short_model: Path, book: Path, capsys: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading_aloud(self, *arguments, **options):
        print("reads", file=sys.stderr)
        return read(self, *arguments, **options)

    from lazymlx import Session

    read = Session.read
    monkeypatch.setattr(Session, "read", reading_aloud)
    said, model, saved = "more than the model's 32 positions", ["--model", str(short_model)], str(tmp_path / "lazydoc")
    assert main(["cache", *model, "--prompt-file", str(book), "-o", saved]) == 0
    assert before(capsys.readouterr().err, said, "reads")
    assert main(["generate", *model, "--document", saved, "-q", "Who?", "-m", "2"]) == 0
    assert before(capsys.readouterr().err, said, "Prompt: ")
    script(monkeypatch, f"/read {book}", "Who?")
    assert main(["chat", *model, "-m", "2"]) == 0
    err = capsys.readouterr().err
    assert before(err, said, "reads") and err.count(said) == 1
    script(monkeypatch, "lamp " * 40)
    assert main(["chat", *model, "-m", "2"]) == 0
    assert before(capsys.readouterr().err, said, "TTFT")


def test_a_variable_names_the_model(tiny_model_folder: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYMLX_MODEL", "/nowhere/at/all")
    assert main(["generate", "-p", "hi"]) == 2
    assert "no folder /nowhere/at/all" in capsys.readouterr().err
    assert main(["generate", "-p", "hi", "-m", "2", "--model", str(tiny_model_folder)]) == 0
    monkeypatch.setenv("LAZYMLX_MODEL", "")
    assert main(["generate", "--prompt-file", "/nowhere.txt"]) == 2
    assert "/nowhere.txt cannot be read" in capsys.readouterr().err


def test_beside_the_demonstration_stands_how_to_name_a_model(capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "document", lambda: TEXT)
    assert main(["generate", "-m", "2", "--no-compare"]) == 0
    line = capsys.readouterr().err.splitlines()[1]
    assert "name one with --model or LAZYMLX_MODEL" in line and all(f"{size} GB" in line for size in (8, 16, 32))


def test_the_embedded_model_says_what_it_is_good_for(
    tiny_model_folder: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "the embedded model answers questions like the demonstration's, and no others"
    script(monkeypatch)
    assert main(["chat"]) == 0
    assert said in capsys.readouterr().err
    assert main(["generate", "-p", "What is the capital of France?", "-m", "2"]) == 0
    assert said in capsys.readouterr().err
    assert main(["chat", "--model", str(tiny_model_folder)]) == 0
    assert main(["generate", "--model", str(tiny_model_folder), "-p", "hi", "-m", "2"]) == 0
    assert said not in capsys.readouterr().err


def test_figures_may_follow_the_answer_on_stdout(
    tiny_model_folder: Path, capsys: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--model", str(tiny_model_folder), "-p", "hi", "-m", "4", "--stats-json", "-"]) == 0
    answer, figures = capsys.readouterr().out.removesuffix("\n").rsplit("\n", 1)
    assert json.loads(figures)["text"] == answer
    assert re.search(r'"lazy": \{', figures) and not list(tmp_path.iterdir())


def test_documents_of_every_kind_are_prompts(
    tiny_model_folder: Path, book: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Several at once, and stdin; in generate, cache and chat alike."""
    page = tmp_path / "page"
    page.write_text("<html><body><p>The keeper is <i>old</i>.</p></body></html>", encoding="utf-8")
    model, answers = ["--model", str(tiny_model_folder)], []
    saved = tmp_path / "lazydoc"
    assert main(["generate", *model, "-p", f"{TEXT}\n\nThe keeper is *old*.", "-q", "Who?", "-m", "4"]) == 0
    answers.append(capsys.readouterr().out)
    assert main(["generate", *model, "-q", "Who?", "-m", "4", "--prompt-file", str(book), str(page)]) == 0
    answers.append(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(page.read_bytes())))
    assert main(["cache", *model, "-o", str(saved), "--prompt-file", str(book), "-"]) == 0
    assert main(["generate", *model, "--document", str(saved), "-q", "Who?", "-m", "4"]) == 0
    answers.append(capsys.readouterr().out)
    script(monkeypatch, f"/read {book}", f"/read {page}", "Who?")
    assert main(["chat", *model, "-m", "4"]) == 0
    answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
