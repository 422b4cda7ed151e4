"""Where a chat's messages come from: a terminal with line editing and history, or a pipe with one a line.

Editing is readline's, from the standard library, and no dependency: GNU readline takes a paste of several lines as one
(bracketed paste), writes a history that we keep ourselves, and stays out of the way while an answer is written. The
libedit that stands in for it on some systems knows no bracketed paste; there, lines that arrive together are one
message.
"""

import select
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import PromptError
from .history import append_history, history_file, load_history

FIRST, FURTHER = "> ", "... "  # prompts: of a message, and of its further lines
TOGETHER_S = 0.05  # a paste's next line is there by then; nobody types so fast


class Discarded(Exception):
    """What was typed is thrown away."""


class InputLines(ABC):
    """Messages, made of lines.

    Args:
        stay: is called at the first Ctrl-C at an empty prompt, which may be a slip; the next one leaves.
    """

    def __init__(self, stay: Callable[[], None]):
        self.stay = stay

    def message(self) -> str:
        """The next one: a line, or several of which all but the last end with a backslash.

        Raises:
            EOFError: there is none, or the user wants to leave.
            PromptError: it is not text.
        """
        said: list[str] = []
        stayed = not is_interactive()  # a script is not asked twice
        while True:
            try:
                line = self.line(FURTHER if said else FIRST)
            except Discarded:
                said = []
                continue
            except KeyboardInterrupt:
                if not said:
                    if stayed:
                        raise EOFError from None
                    stayed = True
                    self.stay()
                said = []
                continue
            except EOFError:
                if not said:
                    raise
                line = ""
            if not line.endswith("\\"):
                message = "\n".join([*said, line])
                self.remember(message)
                return message
            said.append(line[:-1])

    @abstractmethod
    def line(self, prompt: str) -> str:
        """The next line, without its end.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C at an empty prompt.
            Discarded: Ctrl-C, with something typed.
            PromptError: it is not text.
        """

    @abstractmethod
    def remember(self, message: str) -> None:
        """Put a message into the history."""


def open_input(complete: Callable[[str], Sequence[str]], stay: Callable[[], None]) -> InputLines:
    """The input for what stdin and stdout are; `complete` lists what a line may become, `stay` as in `InputLines`."""
    if is_interactive() and sys.stdout is not None and sys.stdout.isatty():
        try:
            return EditedLines(complete, history_file(), stay)
        except ImportError:  # a Python without readline
            pass
    return PlainLines(stay)


def is_interactive() -> bool:
    """Whether somebody sits at a prompt."""
    return sys.stdin is not None and sys.stdin.isatty()


def one_by_one(complete: Callable[[str], Sequence[str]]) -> Callable[[str, int], str | None]:
    """readline's way to ask: for the n-th completion of a text, from 0 on until there is none."""
    found: Sequence[str] = ()

    def nth(text: str, n: int) -> str | None:
        nonlocal found
        if n == 0:
            found = complete(text)
        return found[n] if n < len(found) else None

    return nth


class PlainLines(InputLines):
    """Lines of a pipe or a file; of a terminal too, if the answers go elsewhere."""

    def line(self, prompt: str) -> str:
        if sys.stdin is None:  # the shell closed it
            raise EOFError
        if is_interactive():
            print(prompt, end="", file=sys.stderr, flush=True)
        raw = sys.stdin.buffer.readline()
        if not raw:
            raise EOFError
        try:
            return raw.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise PromptError(f"question: it is not UTF-8 text (byte {error.start} of its line)") from None

    def remember(self, message: str) -> None:
        """A script needs no history."""


class EditedLines(InputLines):
    """Lines of a terminal, with readline's editing, completion and history."""

    def __init__(self, complete: Callable[[str], Sequence[str]], history: Path, stay: Callable[[], None]):
        super().__init__(stay)
        import readline

        self.readline, self.history = readline, history
        self.brackets = "libedit" not in (readline.__doc__ or "")
        readline.set_auto_history(False)  # it would make an entry of every line
        readline.set_completer_delims("")  # the whole line is completed
        readline.set_completer(one_by_one(complete))
        readline.parse_and_bind("tab: complete" if self.brackets else "bind ^I rl_complete")
        if self.brackets:
            readline.parse_and_bind("set enable-bracketed-paste on")
        for message in load_history(history):
            readline.add_history(message)

    def line(self, prompt: str) -> str:
        try:
            line = input(prompt)
            while not self.brackets and select.select([sys.stdin], [], [], TOGETHER_S)[0]:
                line += "\n" + input()
            line.encode()  # what was no UTF-8 has become surrogates
        except UnicodeError:
            raise PromptError("question: it is not UTF-8 text") from None
        except KeyboardInterrupt:
            print(flush=True)
            if self.readline.get_line_buffer():
                raise Discarded from None
            raise
        except EOFError:
            print(flush=True)
            raise
        return line

    def remember(self, message: str) -> None:
        if message.strip():
            self.readline.add_history(message)
            append_history(self.history, message)
