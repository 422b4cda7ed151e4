"""Every example runs, on a part of the embedded document, and gets its answer."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from lazymlx import demo

FOLDER = Path(__file__).parents[2] / "examples"
PARAGRAPHS = demo.document().split("\n\n")
DOCUMENT = "\n\n".join(PARAGRAPHS[i] for i in (1, 2, 4))
CODE, KEEPER = (demo.questions()[i]["question"] for i in (0, 1))


def example(name: str) -> Any:
    return runpy.run_path(str(FOLDER / f"{name}.py"))["main"]


def test_quickstart(capsys):
    assert example("quickstart")(DOCUMENT, CODE).strip() == "40718"
    assert "LazyStats(" in capsys.readouterr().out


def test_long_document(capsys):
    answers = example("long_document")(DOCUMENT, KEEPER)
    assert list(answers) == ["dense", "8:0.5", "8:0.25", "8:0.1,10:0.05"]
    assert answers["dense"] == answers["8:0.5"] == answers["8:0.25"] == "Drelmina Thorsu"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "100.0%" in lines[1]


def test_custom_scorer():
    assert example("custom_scorer")(DOCUMENT, KEEPER) == "Drelmina Thorsu"


def test_chat_session(capsys):
    session = example("chat_session")(DOCUMENT, [f"{CODE}\n", "\n", "undo\n", f"{KEEPER}\n", f"{CODE}\n"])
    assert [m["content"].strip() for m in session.messages[1::2]] == ["Drelmina Thorsu", "40718"]
    assert capsys.readouterr().out.count("revived so far]") == 3


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_here(path):
    assert f'example("{path.stem}")' in Path(__file__).read_text(encoding="utf-8")
