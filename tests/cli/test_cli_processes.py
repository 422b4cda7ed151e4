"""`lazymlx generate` as a process: signals, pipes, terminals and locales, which nothing but a process has."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = "The harbour of Ludmere has two lamps, and the keeper lights the green one first. "
PATIENCE = 60  # seconds; the processors may be shared

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tiny_model_folder: Path) -> Iterator[Start]:
    """Start the command on the tiny model, with its streams as pipes unless told otherwise."""
    started = []

    def start(*arguments: str, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", "lazymlx.generate", "--model", str(tiny_model_folder), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
        environment = {**os.environ, **options.pop("env", {})}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **{**pipes, **options})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen) -> tuple[bytes, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return out, (err or b"").decode()


def test_ctrl_c_leaves_the_text_so_far_and_its_statistics(start: Start, tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    process = start("-p", TEXT, "-m", "-1", "--compare", "--stats-json", str(stats))
    begun = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    rest, err = finish(process)
    assert process.returncode == 130
    content = json.loads(stats.read_text(encoding="utf-8"))
    assert (begun + rest).decode() == content["text"] + "\n"
    assert content["finish_reason"] == "interrupted"
    assert re.search(r"^Generation: \d+ tokens, ", err, re.MULTILINE)
    assert "TTFT: " in err and "Traceback" not in err


def test_a_closed_pipe_ends_quietly(start: Start) -> None:
    process = start("-p", TEXT, "-m", "-1")
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(PATIENCE) == 0
    lines = [line for line in err.splitlines() if "OpenBLAS" not in line]  # which not every machine has
    assert lines == [lines[0], "=========="]


def test_help_into_a_closed_pipe_ends_quietly(start: Start) -> None:
    process = start("--help")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error(start: Start) -> None:
    with open("/dev/full", "wb") as full:
        process = start("-p", TEXT, stdout=full)
        _, err = finish(process)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "lazymlx: error: stdout: the answer could not be written: No space left on device"


def test_text_is_utf8_in_any_locale(start: Start, tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("-p", "-", "-m", "16", "--stats-json", str(stats), stdin=subprocess.PIPE, env=ascii_only)
    out, err = process.communicate("ä".encode(), timeout=PATIENCE)
    assert process.returncode == 0, err
    content = json.loads(stats.read_text(encoding="utf-8"))
    assert out == (content["text"] + "\n").encode()
    assert not content["text"].isascii()  # what these random weights say


class Terminal:
    """A pseudo-terminal: `slave` for the process, and what it was sent."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()

    def everything(self, process: subprocess.Popen) -> str:
        """What the process writes until it ends."""
        os.close(self.slave)
        shown, deadline = b"", time.monotonic() + PATIENCE
        while time.monotonic() < deadline and select.select([self.master], [], [], PATIENCE)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:  # macOS says the same so
                break
            shown += piece
        process.wait(PATIENCE)
        os.close(self.master)
        return shown.decode()


def test_a_terminal_sees_a_bar_while_the_prompt_is_read(start: Start) -> None:
    terminal = Terminal()
    process = start("-p", TEXT * 50, "-m", "4", stderr=terminal.slave, env={"TERM": "xterm", "COLUMNS": "100"})
    shown = terminal.everything(process)
    assert process.returncode == 0
    out = process.stdout.read().decode()
    assert "\x1b" not in out and out.endswith("\n")
    bar, statistics = shown.index("reading"), shown.index("Prompt: ")
    assert bar < statistics
    assert re.search(r"\d+/\d+", shown[bar:statistics])
    assert "\x1b[2K" in shown[bar:statistics]  # erased before the answer
    assert "\x1b" not in shown[statistics:]


def test_quiet_shows_a_terminal_nothing(start: Start) -> None:
    terminal = Terminal()
    process = start("-p", TEXT * 50, "-m", "4", "--verbose", "F", stderr=terminal.slave, env={"TERM": "xterm"})
    assert terminal.everything(process) == ""
    assert process.returncode == 0


def test_streams_may_be_closed(tiny_model_folder: Path) -> None:
    command = f"{sys.executable} -m lazymlx.generate --model {tiny_model_folder} -p hi -m 2"
    answers = []
    for closed in ("", "2>&-", "<&- >&-"):
        done = subprocess.run(f"{command} {closed}", shell=True, cwd=ROOT, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode()
        answers.append(done.stdout)
    assert answers[0] == answers[1] != b"" and answers[2] == b""
