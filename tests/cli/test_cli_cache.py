"""`lazymlx cache` and `lazymlx generate --document`: read once, asked many times."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from commands import LAZY, TEXT

from lazymlx import LazyConfig, Session, load
from lazymlx.cli.main import main
from lazymlx.cli.values import memory_size


class Commands:
    """The two commands on the tiny model."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], scratch: Path):
        self.folder, self.capsys, self.scratch = folder, capsys, scratch
        self.book, self.saved, self.json = scratch / "book.txt", scratch / "book.lazydoc", scratch / "stats.json"
        self.book.write_text(TEXT, encoding="utf-8")

    def run(self, name: str, *arguments: str, code: int = 0) -> str:
        """The command's stdout; with a `code`, its stderr."""
        assert main([name, "--model", str(self.folder), *arguments]) == code
        out, self.err = self.capsys.readouterr()
        return self.err if code else out

    def cache(self, *arguments: str, code: int = 0) -> str:
        return self.run("cache", "-o", str(self.saved), *arguments, code=code)

    def ask(self, *arguments: str, code: int = 0) -> str:
        return self.run("generate", "--document", str(self.saved), "-m", "6", *arguments, code=code)


@pytest.fixture
def commands(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Commands:
    return Commands(tiny_model_folder, capsys, tmp_path)


def test_a_saved_document_answers_as_the_text_does(commands: Commands) -> None:
    assert commands.cache("--prompt-file", str(commands.book), *LAZY) == ""
    assert re.search(r"saved \d+ tokens to .*book.lazydoc, \d+\.\d MB", commands.err)
    for question in ("Who lights it?", "Which one?"):
        direct = commands.run("generate", "--prompt-file", str(commands.book), "-q", question, "-m", "6", *LAZY)
        assert commands.ask("-q", question, "--stats-json", str(commands.json)) == direct
        stats = json.loads(commands.json.read_text())
        assert stats["lazy"]["schedule"] == "2:0.5,4:0.2"
        assert stats["prompt_tokens"] < stats["lazy"]["prompt_tokens"]  # the document is not read again
        now = stats["prompt_computed"]  # but what was left behind of it is computed
        assert now[0] == stats["prompt_tokens"] < now[1] and now[1] == stats["lazy"]["kept"][0]
        assert re.search(rf"behind \d+ that were read before; computed for it: {now[0]} in layers 0-1, ", commands.err)
    assert "asking" in commands.err and "Kept: " in commands.err


def test_a_document_loads_the_model_it_was_saved_with(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the user names one; and says which, where it is gone."""
    there, ask = tmp_path / "model", ["--document", str(commands.saved), "-q", "Who?", "-m", "4"]
    commands.folder = shutil.copytree(commands.folder, there)
    monkeypatch.chdir(tmp_path)
    commands.run("cache", "-o", str(commands.saved), "--prompt-file", str(commands.book), "--model", "model")
    answer = commands.run("generate", *ask)
    monkeypatch.chdir("/")
    monkeypatch.setenv("LAZYMLX_MODEL", "/nowhere")
    assert main(["generate", *ask]) == 0
    assert commands.capsys.readouterr().out == answer
    moved = there.rename(tmp_path / "moved")
    assert main(["generate", *ask]) == main(["chat", *ask[:2]]) == 2
    one, other = (line for line in commands.capsys.readouterr().err.splitlines() if "error" in line)
    assert one == other and f"was saved with {there}, which cannot be had; name it with --model" in one
    assert main(["generate", *ask, "--model", str(moved)]) == 0
    assert commands.capsys.readouterr().out == answer
    assert main(["generate", *ask, "--model", "/nowhere"]) == 2
    assert "error: model: no folder /nowhere" in commands.capsys.readouterr().err


def test_what_was_kept_counts_earlier_answers_too(commands: Commands) -> None:
    model, tokenizer = load(str(commands.folder), lazy=LazyConfig(schedule="2:0.5,4:0.2", min_tokens=0))
    with Session(model, tokenizer) as session:
        session.read(TEXT)
        for _ in session.ask("Who lights it?", 20):
            pass
        session.save(commands.saved)
        before = session.stats.context_tokens
    commands.ask("-q", "Which one?", "--stats-json", str(commands.json))
    context = json.loads(commands.json.read_text())["lazy"]["prompt_end"]
    assert context > before
    assert re.search(rf"Kept: \d+/{context} tokens", commands.err)


def test_a_document_comes_from_stdin_too(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    commands.cache("--prompt", "-", "--system-prompt", "Be brief.", "--prefill-step-size", "7")
    assert commands.ask("-q", "Who?", "--verbose", "F").strip()
    assert commands.err == ""


@pytest.mark.parametrize(
    "arguments, what",
    [
        (["-p", "other"], "--prompt: goes without --document"),
        (["--prompt-file", "x"], "--prompt-file: goes without --document"),
        (["--system-prompt", "x"], "--system-prompt: goes without --document"),
        (["--compare"], "--compare: goes without --document"),
        (["--schedule", "2:0.5"], "keeps the configuration"),
        (["--lazy", "off"], "keeps the configuration"),
    ],
)
def test_what_was_settled_when_it_was_saved_is_refused(commands: Commands, arguments: list[str], what: str) -> None:
    assert what in commands.ask("-q", "Who?", *arguments, code=2)


def test_a_document_needs_a_question(commands: Commands) -> None:
    assert "give one with --question" in commands.ask(code=2)


def test_damaged_and_foreign_files_are_one_line(commands: Commands, tmp_path: Path) -> None:
    assert "cannot be read" in commands.ask("-q", "Who?", code=2)
    commands.cache("--prompt-file", str(commands.book))
    commands.saved.write_bytes(commands.saved.read_bytes()[:-9])
    assert "was cut short" in commands.ask("-q", "Who?", code=2)
    assert commands.err.splitlines()[-1].startswith("lazymlx: error: document: ")
    commands.saved.write_text("hello")
    assert "is no saved document" in commands.ask("-q", "Who?", code=2)


def test_a_place_that_cannot_be_written_is_refused_before_reading(commands: Commands, tmp_path: Path) -> None:
    for place, what in ((tmp_path / "none" / "book", "there is no folder"), (tmp_path, "is a folder")):
        commands.saved = place
        assert what in commands.cache("--prompt-file", str(commands.book), code=2)
        assert "reading" not in commands.err


def test_too_much_is_refused_with_the_figure(commands: Commands) -> None:
    line = commands.cache("--prompt-file", str(commands.book), "--max-memory", "10kB", code=2)
    assert re.search(r"memory: \d+ tokens need about [\d.]+ MB", line)
    line = commands.run("generate", "--prompt-file", str(commands.book), "--max-memory", "10kB", code=2)
    assert re.search(r"memory: \d+ tokens need about [\d.]+ MB", line)


@pytest.mark.parametrize("text, size", [("12GB", 12 * 10**9), ("1.5gb", 1500 * 10**6), ("7", 7), ("3 MB", 3 * 10**6)])
def test_sizes(text: str, size: int) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "1TB", "inf", "nan", "12 potatoes"])
def test_what_is_no_size(commands: Commands, text: str) -> None:
    assert "--max-memory" in commands.run("generate", "-p", "x", f"--max-memory={text}", code=2)


def test_another_conversation_is_replaced_by_a_flag_alone(commands: Commands) -> None:
    commands.cache("--prompt-file", str(commands.book))
    before = commands.saved.read_bytes()
    assert "holds another conversation" in commands.cache("-p", "other", code=2)
    assert "reading" not in commands.err and commands.saved.read_bytes() == before
    commands.cache("-p", "other", "--overwrite")
    assert commands.saved.read_bytes() != before


def test_a_text_is_not_lost_under_the_name_of_a_document(commands: Commands) -> None:
    """Not even one that talks of documents."""
    commands.book.write_text(TEXT + 'its header says {"format": "lazymlx document"}')
    before = commands.book.read_bytes()
    said = commands.run("cache", "-o", str(commands.book), "--prompt-file", str(commands.book), code=2)
    assert "--output: " in said and "book.txt is a file of another kind, which would be lost" in said
    assert commands.book.read_bytes() == before
    commands.saved.touch()  # nothing is in it
    commands.cache("--prompt-file", str(commands.book), *LAZY)
