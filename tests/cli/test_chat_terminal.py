"""`lazymlx chat` in a real terminal: editing, history, pastes, Ctrl-C and Ctrl-D; and what its doors open on."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import LAZY
from commands import TEXT as SHORT

from lazymlx import Session, load

TEXT = SHORT * 2
ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds; the processors may be shared
PROMPT = "\x1b[?2004h> "  # readline asks the terminal to bracket pastes, then shows the prompt
PASTE = "\x1b[200~{}\x1b[201~"
CTRL_C, CTRL_D, UP, ENTER = "\x03", "\x04", "\x1b[A", "\r"


class Terminal:
    """A process that owns a pseudo-terminal, and what it has shown there."""

    def __init__(self, command: list[str], **environment: str):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        around = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # the terminal has its own
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *command],
            cwd=ROOT,
            env={**around, "TERM": "xterm", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def type(self, *keys: str) -> None:
        os.write(self.master, "".join(keys).encode())

    def interrupt(self) -> None:
        """Ctrl-C, as late as a person types it: between showing a prompt and waiting for keys, Python does not hear."""
        time.sleep(0.3)
        self.type(CTRL_C)

    def until(self, text: str) -> str:
        """What is shown from now on, up to this text."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline and self._read(), f"{text!r} is not in {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def end(self) -> int:
        """Wait until the process ends; its exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], PATIENCE)[0]:
            return False
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # Linux: the other side is closed; macOS reads nothing
            piece = b""
        self.shown += piece.decode(errors="replace")
        return bool(piece)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "book.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def terminal(tiny_model_folder: Path, folder: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A chat whose answers have so many tokens."""
    command = ["-m", "lazymlx.chat", "--model", str(tiny_model_folder), *LAZY, "-m", request.param]
    terminal = Terminal(command, XDG_CACHE_HOME=str(folder / "cache"))
    yield terminal
    terminal.close()


def history(folder: Path) -> list[str]:
    lines = (folder / "cache" / "lazymlx" / "chat_history").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("terminal", ["-1"], indirect=True)
def test_a_conversation(terminal: Terminal, folder: Path) -> None:
    """A bar while reading, an answer that is stopped, its cost, and the session after it."""
    shown = re.sub(r"\x1b\[[\d?]*\w", "", terminal.until(PROMPT))
    assert "/help lists the commands" in " ".join(shown.split())  # the folder's name decides where the line ends

    terminal.type(f"/read {folder}/bo\t", ENTER)  # Tab completes it
    shown = terminal.until(PROMPT)
    assert re.search(r"reading book.txt .*?\d+/\d+.* tokens", shown)
    assert "\x1b[2K\x1b[2mread book.txt: " in shown  # the bar is erased, the note dim

    for question in ("who?", "where?"):
        terminal.type(question, ENTER)
        terminal.until("\x1b[?25h")  # the bar has gone, the answer begins
        terminal.until(" ")
        if question == "where?":
            terminal.type("/stats", ENTER)  # ahead: it is for the prompt, and does not show in the answer
        terminal.interrupt()
        shown = terminal.until(PROMPT)
        assert "/stats" not in shown
        assert re.search(r"\n\x1b\[2mkept \d+/\d+, \d+/\d+ · revived \d+ · TTFT .* tok/s · .* · stopped\x1b", shown)
    assert " 4 messages" in terminal.until(PROMPT)

    terminal.type("never mind")
    terminal.until("never mind")
    terminal.interrupt()
    terminal.until(PROMPT)
    terminal.type("/nonsense", ENTER)
    assert "no such command; there are /read" in terminal.until(PROMPT)
    terminal.type(CTRL_D)
    assert terminal.end() == 0
    assert history(folder)[1:] == ["who?", "where?", "/stats", "/nonsense"]


@pytest.mark.parametrize("terminal", ["4"], indirect=True)
def test_editing(terminal: Terminal, folder: Path) -> None:
    """A paste is one message, a backslash goes on, the arrows bring messages back whole, a second Ctrl-C leaves."""
    terminal.until(PROMPT)
    terminal.type("/lazy off", ENTER)
    assert "everything is computed" in terminal.until(PROMPT)

    terminal.type(PASTE.format("/one\rtwo\nthree"), "!")
    terminal.until("three")
    terminal.type(ENTER)
    assert "no such command" not in terminal.until(PROMPT)

    terminal.type("four\\", ENTER)
    terminal.until("... ")
    terminal.type("five", ENTER)
    terminal.until(PROMPT)

    terminal.type(UP, UP)
    terminal.until("three!")
    terminal.type("?", ENTER)
    terminal.until(PROMPT)

    terminal.type("six\\", ENTER)
    terminal.until("... ")
    terminal.interrupt()  # throws away what was begun
    terminal.until(PROMPT)
    terminal.interrupt()
    assert "Ctrl-C again, or Ctrl-D, leaves; this conversation is not saved" in terminal.until(PROMPT)
    terminal.type(f"/save {folder}/kept", ENTER)  # whoever goes on is asked anew
    terminal.until(PROMPT)
    terminal.interrupt()
    assert "not saved" not in terminal.until(PROMPT)
    terminal.interrupt()
    assert terminal.end() == 0
    assert history(folder) == [
        "/lazy off",
        "/one\ntwo\nthree!",
        "four\nfive",
        "/one\ntwo\nthree!?",
        f"/save {folder}/kept",
    ]


@pytest.mark.parametrize("terminal", ["4"], indirect=True)
def test_saving_over_another_conversation_is_asked_for(
    terminal: Terminal, folder: Path, tiny_model_folder: Path
) -> None:
    there, (model, tokenizer) = folder / "other.lazydoc", load(str(tiny_model_folder))
    with Session(model, tokenizer) as session:
        session.read(TEXT)
        session.save(there)
    before = there.read_bytes()
    terminal.until(PROMPT)
    for reply, replaced in ((ENTER, False), ("n" + ENTER, False), ("y" + ENTER, True)):
        terminal.type(f"/save {there}", ENTER)
        terminal.until("holds another conversation; replace it? [y/N] ")
        terminal.type(reply)
        assert ("saved 0 tokens" in terminal.until(PROMPT)) == replaced
        assert (there.read_bytes() != before) == replaced


@pytest.mark.parametrize("terminal", ["4"], indirect=True)
def test_a_conversation_that_is_not_saved_makes_way_if_the_user_says_so(terminal: Terminal, folder: Path) -> None:
    asked, other = "this conversation is not saved; forget it? [y/N] ", folder / "other"
    terminal.until(PROMPT)
    terminal.type(f"/save {other}", ENTER)
    terminal.until(PROMPT)
    terminal.type("/set system brief", ENTER)  # nothing is lost by it
    assert asked not in terminal.until(PROMPT)
    terminal.type(f"/read {folder}/book.txt", ENTER)
    terminal.until(PROMPT)
    for command in ("/set system long", f"/open {other}", "/model other", "/lazy on"):
        terminal.type(command, ENTER)
        terminal.until(asked)
        terminal.type(ENTER)
        assert "stopped: the conversation goes on" in terminal.until(PROMPT)
    terminal.type("/docs", ENTER)
    assert "book.txt: " in terminal.until(PROMPT)
    terminal.type("/lazy off", ENTER)
    terminal.until(asked)
    terminal.type("y", ENTER)
    assert "everything is computed" in terminal.until(PROMPT)


WITHOUT_BRACKETS = """
from pathlib import Path
from lazymlx.cli.input_lines import EditedLines
lines = EditedLines(lambda text: [], Path("/dev/null/none"), lambda: None)
lines.readline.parse_and_bind("set enable-bracketed-paste off")
lines.brackets = False
for _ in range(2):
    print("said", repr(lines.message()))
"""


def test_without_bracketed_paste_lines_that_arrive_together_are_one_message() -> None:
    terminal = Terminal(["-c", WITHOUT_BRACKETS])
    terminal.until("> ")
    terminal.type("one\rtwo\rthree")
    terminal.until("three")
    terminal.type(ENTER)
    assert terminal.until("> ").endswith(r"said 'one\ntwo\nthree'" + "\r\n> ")
    terminal.type("four", ENTER)
    assert "said 'four'" in terminal.until("four'")
    assert terminal.end() == 0
    terminal.close()


@pytest.fixture
def script(tiny_model_folder: Path) -> Iterator[subprocess.Popen]:
    """A chat that is asked two questions through a pipe, in the middle of its first, endless answer."""
    command = [sys.executable, "-m", "lazymlx", "chat", "--model", str(tiny_model_folder), *LAZY, "-m", "-1"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, bufsize=0, **pipes) as process:
        process.stdin.write(b"who?\nwhere?\n")
        process.stdout.read(5)
        yield process
        process.kill()


def test_ctrl_c_ends_a_script(script: subprocess.Popen) -> None:
    script.send_signal(signal.SIGINT)
    out, err = script.communicate(timeout=PATIENCE)
    assert script.returncode == 130
    assert out.endswith(b"\n") and err.decode().splitlines() == ["lazymlx: interrupted"]


def test_a_closed_pipe_ends_quietly(script: subprocess.Popen) -> None:
    script.stdout.close()
    assert script.stderr.read() == b""
    assert script.wait(PATIENCE) == 0


def test_the_door_needs_nothing_heavy_for_its_help() -> None:
    command = [sys.executable, "-W", "error", "-X", "importtime", "-m", "lazymlx.chat", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: lazymlx chat")
    assert not re.search(r"\| +(mlx|mlx_lm|transformers|pypdf)\b", done.stderr)
