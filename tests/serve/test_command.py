"""`lazymlx serve` from its start to its end."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_folder import write_model

from lazymlx.cli.main import main
from lazymlx.cli.serve import listen
from lazymlx.serve.answering import Answering

httpx = pytest.importorskip("httpx")

HELLO = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 2}


def test_it_says_how_to_reach_it_and_ctrl_c_ends_it_and_twice_its_answer_too(tiny_model_folder: Path) -> None:
    command = [sys.executable, "-m", "lazymlx.serve", "--model", str(tiny_model_folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = [server.stderr.readline() for _ in range(4)]
        address = re.search(r"http://127\.0\.0\.1:\d+", said[0])
        assert address and all(address[0] in line for line in said)
        assert httpx.get(f"{address[0]}/health", timeout=20).status_code == 200
        answer = httpx.post(f"{address[0]}/v1/chat/completions", json=HELLO, timeout=20)
        assert answer.json()["usage"]["completion_tokens"] == 2 and str(tiny_model_folder) not in answer.text
        endless = {**HELLO, "max_tokens": 2000, "stream": True}
        with httpx.stream("POST", f"{address[0]}/v1/chat/completions", json=endless, timeout=20) as response:
            lines = response.iter_lines()
            while "content" not in next(lines):
                pass
            for _ in range(2):
                server.send_signal(signal.SIGINT)
                time.sleep(0.2)
            assert any("ending" in line for line in lines)
        assert server.wait(20) == 0 and server.stderr.read() == ""


@pytest.fixture
def asking() -> Iterator[list[int]]:
    """Asks at port 18431 until there is an answer, whose status comes into the list."""
    statuses: list[int] = []

    def ask() -> None:
        for _ in range(400):
            try:
                statuses.append(httpx.post("http://127.0.0.1:18431/v1/chat/completions", json=HELLO).status_code)
                return
            except httpx.ConnectError:
                time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    yield statuses
    thread.join()


def test_a_device_that_computes_no_more_ends_the_server_with_an_error(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, asking: list[int]
) -> None:
    def dies(self, job) -> None:
        raise SystemExit("lost")

    monkeypatch.setattr(Answering, "answer", dies)
    assert main(["serve", "--model", str(tiny_model_folder), "--port", "18431"]) == 1
    assert "computes no more: SystemExit: lost" in capsys.readouterr().err


def test_beyond_this_machine_a_key_is_required(capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--api-key" in capsys.readouterr().err


def test_texts_cannot_be_moved_where_keys_depend_on_the_context(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = write_model(tmp_path, rope_scaling={"type": "dynamic", "factor": 2.0})
    assert main(["serve", "--model", str(model), "--port", "0", "--moved", "0.1"]) == 2
    assert "--moved: this model's keys depend on more" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(address: str, capsys: pytest.CaptureFixture) -> None:
    port = address.rpartition(":")[2]
    assert main(["serve", "--port", port]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_who_connects_before_it_takes_up_its_work_is_not_refused() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass


def test_without_its_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.startswith("lazymlx.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert main(["serve", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "pip install 'lazymlx[serve]'" in said.err
