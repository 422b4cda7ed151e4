"""An answer on stdout as it comes: byte for byte, or set as Markdown and wrapped at words where that is a terminal.

What is still being said is shown in a region that is drawn anew several times a second; a paragraph, a list or a block
of code leaves it once the next one begins, and is text like any other then.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from .terminal import write

PERIOD_S = 0.1  # between two drawings
# HTML is text: an answer about <div> must not lose it. So is where a reference leads.
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class AnswerText(ABC):
    """Takes an answer piece by piece; when it ends, so does its line."""

    def __enter__(self) -> "AnswerText":
        return self

    @abstractmethod
    def add(self, text: str) -> None:
        """The next piece."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is no more; if there was nothing, nothing is shown."""


def answer_text() -> AnswerText:
    """What suits stdout."""
    console = Console(highlight=False)
    return Typeset(console) if console.is_terminal and not console.is_dumb_terminal else Plain()


class Plain(AnswerText):
    """Byte for byte."""

    def __init__(self) -> None:
        self._begun = False

    def add(self, text: str) -> None:
        self._begun = True
        write(text)

    def __exit__(self, *_: object) -> None:
        if self._begun:
            write("\n")


class Typeset(AnswerText):
    """Markdown on a terminal. A document's control characters, repeated by the model, are no commands to it."""

    def __init__(self, console: Console):
        self._console = console
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._open = ""  # what is still being said
        self._first = True
        self._drawn = -PERIOD_S

    def add(self, text: str) -> None:
        self._open += text.translate(CONTROL)
        now = time.monotonic()
        if now - self._drawn < PERIOD_S:
            return
        self._drawn = now
        self._live.start()
        *done, self._open = blocks(self._open)
        for block in done:
            self._print(block)
        self._live.update(Markup(self._open, gap=not self._first, newest=True), refresh=True)

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for block in blocks(self._open):
            self._print(block)

    def _print(self, block: str) -> None:
        if block.strip():
            self._console.print(Markup(block, gap=not self._first), end="")
            self._first = False


def blocks(text: str) -> list[str]:
    """A text cut where top-level blocks begin; at least one, and joined they are the text."""
    starts = [token.map[0] for token in PARSER.parse(text) if token.level == 0 and token.map is not None]
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    edges = [0, *starts[1:], len(lines)]
    return ["".join(lines[start:stop]) for start, stop in zip(edges, edges[1:], strict=False)]


class Markup:
    """A block of Markdown whose line breaks stay, and whose links show where they lead. One of which nothing would be
    seen, as of an answer that is "1986." and so an empty list, is shown as it is.

    Args:
        gap: an empty line goes before it.
        newest: only the last lines, as many as a screen has room for.
    """

    def __init__(self, text: str, *, gap: bool, newest: bool = False):
        self._markdown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
        self._markdown.parsed = PARSER.parse(text)
        for token in self._markdown.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
        self._text, self._gap, self._newest = text, gap, newest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        shown = _seen(console.render_lines(self._markdown, options.update(height=None), pad=False))
        shown = shown or _seen(console.render_lines(Text(self._text), options.update(height=None), pad=False))
        if self._gap and shown:
            shown.insert(0, [])
        for line in shown[-(options.size.height - 1) :] if self._newest else shown:
            yield from line
            yield Segment.line()


def _seen(lines: list[list[Segment]]) -> list[list[Segment]]:
    """Without the empty lines before and after."""
    full = [n for n, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
    return lines[full[0] : full[-1] + 1] if full else []
