"""What launchers say, and what ranks tell each other beside arrays."""

import json
import socket
from pathlib import Path
from threading import Thread

import pytest

from lazymlx.errors import ModelError, RunError
from lazymlx.ranks.channel import Channel
from lazymlx.ranks.group import Ranks
from lazymlx.ranks.launched import HOSTS, RANK, SIZE, first_address, launched_rank, launched_size

RING = [["10.0.0.1:5000", "10.0.0.1:5001"], ["10.0.0.2:5002", "10.0.0.2:5003"]]
DEVICES = [[None, "rdma_en2"], ["rdma_en2", None]]


@pytest.mark.parametrize(
    ("variables", "files", "expected"),
    [
        ({}, {}, (None, None, None)),
        ({"MLX_RANK": "1"}, {"MLX_HOSTFILE": json.dumps(RING)}, (1, 2, "10.0.0.1")),
        ({"MLX_RANK": "0"}, {"MLX_HOSTFILE": ""}, (None, 1, None)),  # mlx.launch -n 1
        ({"MLX_RANK": "1", "MLX_WORLD_SIZE": "2", "NCCL_HOST_IP": "127.0.0.1"}, {}, (1, 2, "127.0.0.1")),
        (
            {"MLX_RANK": "1", "MLX_JACCL_COORDINATOR": "10.0.0.1:5000"},
            {"MLX_IBV_DEVICES": json.dumps(DEVICES)},
            (1, 2, "10.0.0.1"),
        ),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, {}, (3, 4, None)),
    ],
)
def test_what_launchers_say(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    files: dict[str, str],
    expected: tuple[int | None, int | None, str | None],
) -> None:
    for name in (*RANK, *SIZE, *HOSTS, "NCCL_HOST_IP", "MLX_JACCL_COORDINATOR"):
        monkeypatch.delenv(name, raising=False)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        monkeypatch.setenv(name, str(tmp_path / name))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launched_rank(), launched_size(), first_address()) == expected


@pytest.fixture
def channels() -> tuple[Channel, Channel]:
    """Of two ranks in one process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        second = socket.create_connection(listener.getsockname())
        first, _ = listener.accept()
    hosts = ["one", "two"]
    return Channel(0, hosts, {1: first}, pytest.fail), Channel(1, hosts, {0: second}, pytest.fail)


def test_decisions_errors_and_answers_arrive(channels: tuple[Channel, Channel]) -> None:
    first, second = channels
    first.send("number", {"value": [1, "é\n"]})
    first.send("model", {"error": "ModelError", "text": "it is not there"})
    first.send("one", {"value": 1})
    ranks = Ranks()
    ranks.channel, ranks.rank = second, 1
    assert ranks.decided("number", pytest.fail) == [1, "é\n"]
    with pytest.raises(ModelError, match="it is not there"):
        ranks.decided("model", pytest.fail)
    with pytest.raises(RunError, match="rank 1 waits for 'other', and rank 0 speaks of 'one'; .* same program"):
        ranks.decided("other", pytest.fail)
    second.send("room", 7)
    assert first.gather("room", 5) == [5, 7] == second.receive("room")
    ending = Thread(target=first.end, args=(0,))
    ending.start()
    second.end(0)
    ending.join()
