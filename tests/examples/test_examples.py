"""Every example runs, on a part of the embedded document, and gets its answer."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from pdf import pdf

from lazymlx import demo

FOLDER = Path(__file__).parents[2] / "examples"
PARAGRAPHS = demo.document().split("\n\n")
DOCUMENT = "\n\n".join(PARAGRAPHS[i] for i in (1, 4))  # the answers are in them
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


def test_ten_questions(tmp_path: Path, capsys):
    """About a PDF; each as if it were the first."""
    (tmp_path / "book.pdf").write_bytes(pdf(*(part.replace("\n", " ") for part in DOCUMENT.split("\n\n"))))
    answers = example("ten_questions")(tmp_path / "book.pdf", (CODE, KEEPER))
    assert answers == ["40718", "Drelmina Thorsu"]
    assert capsys.readouterr().out.count("to the first token") == 2


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Its cells run from the top to the bottom."""
    monkeypatch.setattr(demo, "document", lambda: DOCUMENT)
    monkeypatch.chdir(tmp_path)
    cells = json.loads((FOLDER / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec("".join(cell["source"]), names)
    assert names["answers"]["dense"] == "Drelmina Thorsu" and "Drelmina Thorsu" in capsys.readouterr().out
    assert "<html" in (tmp_path / "explain.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_tested(path):
    """Here, or where it is named as a file."""
    tests = (file.read_text(encoding="utf-8") for file in FOLDER.parent.glob("tests/**/test_*.py"))
    assert any(f'example("{path.stem}")' in test or f'"{path.name}"' in test for test in tests)
