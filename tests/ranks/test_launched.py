"""Processes on MLX's ring, on this machine: whole commands beside the same ones in one process, and how they end."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import LAZY, TEXT
from model_folder import write_model

from lazymlx.cli.main import main

# An average over neighbours that all have one great value among them is nearly the same for each: which of them are
# kept would depend on how sums are rounded, and ranks add up in another order.
UNTIED = ("--pool", "1")
HOST = socket.gethostname()
SOON_S = 10.0  # in which all ranks end; a busy machine included
LONGEST_S = 60.0

Ranks = list[subprocess.Popen[str]]
Start = Callable[..., Ranks]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command on several ranks, as a launcher does; rank 0 has a stdin."""
    started: Ranks = []

    def start(size: int, *arguments: str) -> Ranks:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
        hosts = tmp_path / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{each.getsockname()[1]}"] for each in sockets]))
        for each in sockets:
            each.close()
        for rank in range(size):
            environment = {**os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)}
            command = [sys.executable, "-m", "lazymlx", *arguments]
            stdin = subprocess.DEVNULL if rank else subprocess.PIPE
            pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(stream: io.TextIOBase, words: str) -> str:
    """The lines up to the first one that begins with these words."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if line.startswith(words):
            break
    return "".join(lines)


def test_a_chat_of_two_ranks_is_that_of_one_until_one_is_killed(
    start: Start,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "document.txt").write_text(TEXT)
    saved = tmp_path / "chat.lazydoc"
    script = f"/read {tmp_path}/document.txt\nWho?\n/read /nowhere\nWhere?\n/undo\n/save {saved}\n"
    again = f"/open {saved}\nWhen?\n"
    flags = ["chat", "--model", str(tiny_model_folder), "-m", "4", *LAZY, *UNTIED]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((script + again).encode())))
    assert main([*flags, "--overwrite"]) == 2  # of what is nowhere
    expected = capfd.readouterr()
    saved.unlink()

    ranks = start(2, *flags)
    first, second = ranks
    first.stdin.write(script + again + "/docs\n")
    first.stdin.flush()
    said = read_until(first.stderr, "document.txt: ")
    second.send_signal(signal.SIGKILL)
    first.wait(SOON_S)  # its stdin is open
    out, err = first.stdout.read(), first.stderr.read()
    assert f"lazymlx: error: rank 1 on {HOST} has ended" in err and "Traceback" not in err
    assert first.returncode == 1 and out == expected.out
    counts = re.compile(r"kept .* revived \d+|read .* tokens|forgot .*|saved \d+ tokens")
    assert counts.findall(said) == counts.findall(expected.err)
    assert second.communicate() == ("", "")


def test_ctrl_c_ends_all_with_the_text_so_far(start: Start, tiny_model_folder: Path) -> None:
    first, second = start(2, "generate", "--model", str(tiny_model_folder), "-p", TEXT, "-m", "-1")
    begun = first.stdout.read(1)
    for process in (first, second):  # as a terminal does it
        process.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=SOON_S)
    assert first.returncode == 130 and begun and out.endswith("\n") and "Peak memory: " in err
    assert second.communicate(timeout=SOON_S) == ("", "") and second.returncode == 130


def test_four_ranks_by_the_launcher_answer_as_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Few layers, since four ranks take turns on few processors."""
    folder = write_model(tmp_path / "model", num_key_value_heads=4, num_hidden_layers=2)
    flags = ["generate", "--model", str(folder), "-p", TEXT, "-m", "1", *LAZY, *UNTIED, "--schedule", "1:0.5"]
    assert main(flags) == 0
    expected = capfd.readouterr()
    launcher = [str(Path(sys.executable).with_name("mlx.launch")), "-n", "4", "--backend", "ring", "--"]
    launched = subprocess.Popen(
        [*launcher, sys.executable, "-m", "lazymlx", *flags],
        stdin=subprocess.PIPE,  # one that ends would have the launcher look at nothing all the time
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = launched.stdout.read(), launched.stderr.read()
    launched.communicate(timeout=LONGEST_S)
    assert out == expected.out
    kept = re.compile(r"^(?:Kept|Computed): .*$", re.MULTILINE)
    assert kept.findall(err) == kept.findall(expected.err) != []
