"""An answer in a terminal: Markdown, wrapped at words, the same whatever pieces it came in."""

import io
import re
import sys

import pyte
import pytest
from rich.console import Console

from lazymlx.cli.typeset import Plain, Typeset, answer_text, blocks

TEXT = """\
Some **bold** words, and more of them than a line of this terminal has room for.
A <div> stays, as does a [link](http://there).

- one
- `two`

```python
x = "<b>"
```
| a | b |
| - | - |
| 1 | 2 |

snake_case_names and 2 * 3 * 4
"""
SHOWN = """\
Some bold words, and more of
them than a line of this
terminal has room for.
A <div> stays, as does a link
(http://there).

 • one
 • two

x = "<b>"

 a  b
────
 1  2

snake_case_names and 2 * 3 * 4
next"""


class Screen(io.StringIO):
    """What a terminal of 30 columns shows, with what has left it at the top."""

    def __init__(self, rows: int):
        super().__init__()
        self.screen = pyte.HistoryScreen(30, rows, history=100)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        return self._stream.feed(text.replace("\n", "\r\n")) or len(text)

    @property
    def lines(self) -> list[str]:
        past = ["".join(line[column].data for column in range(30)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*past, *self.screen.display]).rstrip().split("\n")


def plain(line: str) -> str:
    """Without what versions of rich draw differently: how wide a table is, and where lines are indented."""
    return re.sub(r"[─━]+", "-", re.sub(r" +", " ", line)).strip()


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("rows", [6, 40])
def test_markdown_is_set_as_it_comes(size: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazymlx.cli.typeset.PERIOD_S", 0.0)  # drawn at every piece
    screen = Screen(rows)
    console = Console(file=screen, force_terminal=True, width=30, height=rows, highlight=False)
    with Typeset(console) as answer:
        for start in range(0, len(TEXT), size):
            answer.add(TEXT[start : start + size])
    console.print("next")
    assert [plain(line) for line in screen.lines] == [plain(line) for line in SHOWN.split("\n")]


def test_what_is_being_said_shows_its_newest_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazymlx.cli.typeset.PERIOD_S", 0.0)
    screen = Screen(5)
    with Typeset(Console(file=screen, force_terminal=True, width=30, height=5)) as answer:
        answer.add("\n".join(f"line {n}" for n in range(9)))
        assert [line for line in screen.lines if line][-1] == "line 8"
    assert screen.lines == [f"line {n}" for n in range(9)]


@pytest.mark.parametrize("text", ["40718.", "-", "[1]: http://there"])
def test_what_markdown_shows_nothing_of_is_shown_as_it_is(text: str) -> None:
    """A number may be all of an answer, and is an empty list."""
    screen = Screen(9)
    with Typeset(Console(file=screen, force_terminal=True, width=30)) as answer:
        answer.add(f"before\n\n{text}")
    assert screen.lines == ["before", "", text]


def test_an_interruption_leaves_what_was_said_and_the_cursor() -> None:
    screen = Screen(9)
    with pytest.raises(KeyboardInterrupt), Typeset(Console(file=screen, force_terminal=True, width=30)) as answer:
        answer.add("half a word\x1b[2J\x07")
        raise KeyboardInterrupt
    assert screen.lines == ["half a word[2J"] and not screen.screen.cursor.hidden


@pytest.mark.parametrize(
    "text", [TEXT, "", "\n\n", "one", "# a\nb\n===\n> c\nd\n\n1. e\n\n   f\n", "a\u2028b\n\n```\nopen\n\nfence"]
)
def test_blocks_are_the_text(text: str) -> None:
    assert "".join(blocks(text)) == text


def test_elsewhere_it_is_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    with answer_text() as answer:
        assert isinstance(answer, Plain)
        answer.add("**a**\n\x1b")
    with answer_text():
        pass
    assert capsys.readouterr().out == "**a**\n\x1b\n" and not sys.stdout.isatty()
