"""`--explain` and `/explain`: where the page goes, and when there is none."""

import html
import io
import json
import re
import sys
from pathlib import Path

import pytest
from commands import LAZY, TEXT, interrupted_answer

from lazymlx.cli.chat_session import PAGE
from lazymlx.cli.main import main


def totals(path: Path) -> list[list[int]]:
    """Tokens computed in each stage, after each token of the answer."""
    found = re.search(r'data-totals="(.*?)"', path.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def generate(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    def run(*flags: str, code: int = 0) -> tuple[str, dict]:
        figures = tmp_path / "stats.json"
        command = ["generate", "--model", str(tiny_model_folder), "-m", "8", "--stats-json", str(figures), *flags]
        assert main(command) == code
        return capsys.readouterr().err, json.loads(figures.read_text(encoding="utf-8"))

    return run


def test_the_page_of_an_answer(generate, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    err, stats = generate("-p", TEXT, "-q", "Which <one>?", *LAZY, "--explain", str(path))
    assert f"lazymlx: how deep each token was computed: {path}\n" in err
    assert totals(path)[-1] == stats["lazy"]["computed"] and len(totals(path)) == 9
    assert "Which &lt;one&gt;?" in path.read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".*"))


def test_quiet_is_quiet(generate, tmp_path: Path) -> None:
    assert generate("-p", TEXT, "--explain", str(tmp_path / "page.html"), "--verbose", "False")[0] == ""
    assert totals(tmp_path / "page.html")


def test_compared_it_is_the_lazy_side(generate, tmp_path: Path) -> None:
    _, stats = generate("-p", TEXT, *LAZY, "--compare", "--explain", str(tmp_path / "page.html"))
    assert totals(tmp_path / "page.html")[-1] == stats["lazy"]["computed"] != stats["dense"]["lazy"]["computed"]


def test_of_a_saved_document(generate, tiny_model_folder: Path, tmp_path: Path) -> None:
    book, path = tmp_path / "book.lazydoc", tmp_path / "page.html"
    assert main(["cache", "--model", str(tiny_model_folder), "-p", TEXT, "-o", str(book), *LAZY]) == 0
    _, stats = generate("--document", str(book), "-q", "Which one?", "--explain", str(path))
    assert totals(path)[-1] == stats["lazy"]["computed"]
    assert "Ludmere" in re.sub("<[^>]+>", "", path.read_text(encoding="utf-8"))


def test_ctrl_c_leaves_the_answer_so_far(generate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interrupted_answer(monkeypatch, after=3)
    generate("-p", TEXT, *LAZY, "--explain", str(tmp_path / "page.html"), code=130)
    assert len(totals(tmp_path / "page.html")) == 4


def test_ctrl_c_before_the_answer_leaves_none(generate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("lazymlx.cli.answering.stream_generate", interrupted)
    err, _ = generate("-p", TEXT, "--explain", str(tmp_path / "page.html"), code=130)
    assert "the answer had not begun, so no page was written" in err
    assert not (tmp_path / "page.html").exists()


@pytest.fixture
def chat(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(TEXT, encoding="utf-8")

    def run(*lines: str, code: int = 0) -> str:
        script = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script)))
        assert main(["chat", "--model", str(tiny_model_folder), "-m", "6", *LAZY]) == code
        return capsys.readouterr().err

    return run


def test_a_chat_explains_its_newest_answer(chat, tmp_path: Path) -> None:
    err = chat("/read book.txt", "Who lights it?", "/explain a.html", "Which one?", "/read book.txt", "/explain")
    assert err.count("how deep each token was computed: ") == 2 and PAGE in err
    first, second = Path("a.html"), Path(PAGE)
    assert '<h1 dir="auto">Who lights it?</h1>' in first.read_text(encoding="utf-8")
    assert '<h1 dir="auto">Which one?</h1>' in second.read_text(encoding="utf-8")
    assert len(totals(first)) == len(totals(second)) == 7
    assert totals(first)[-1][0] < totals(second)[0][0] < 1.5 * totals(first)[-1][0]


def test_what_a_chat_cannot_explain(chat) -> None:
    err = chat("/explain", "Who?", "/explain book.txt", "/explain none/a.html", "/undo", "/explain", code=1)
    errors = re.findall("^lazymlx: error: explain: (.*)", err, re.M)
    assert errors == [
        "there is no answer to explain; ask a question first",
        "book.txt is no name for a page; expected one that ends with .html",
        "there is no folder none; make it first, or name another place",
        "there is no answer to explain; ask a question first",
    ]
    assert Path("book.txt").read_text(encoding="utf-8") == TEXT
