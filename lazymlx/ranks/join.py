"""`join`: a process that was launched becomes a rank."""

import json
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import mlx.core as mx
import numpy as np

from ..errors import RunError
from .channel import Channel, Say
from .group import ALONE, Ranks
from .launched import first_address, launched_rank, launched_size

LONGEST_S = 60  # to wait for another rank
BYTES = 512  # of the invitation


def join(say: Say, facts: Mapping[str, str]) -> Ranks:
    """Meet the other ranks; alone if none were launched.

    Args:
        say: called with a line that says why all end, should one of them.
        facts: that must be the same on all ranks, by name.

    Raises:
        RunError: they cannot be reached, the launcher's variables do not say how, or they run on something else.
    """
    if launched_rank() is None:
        return ALONE
    try:
        with _endable():
            group = mx.distributed.init(strict=True)
        ranks = Ranks(group, _connected(group, say))
    except (RuntimeError, OSError, ValueError) as error:
        where = f"rank {launched_rank()} on {socket.gethostname()}"
        raise RunError(f"{where} did not meet the other {(launched_size() or 2) - 1}: {error}") from None
    ranks.same("software", {**facts, **_facts()}, RunError)
    return ranks


@contextmanager
def _endable() -> Iterator[None]:
    """While MLX waits for the others, Python handles no signal: here Ctrl-C, and waiting too long, end the process."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _facts() -> dict[str, str]:
    on_cpu, on_metal = mx.default_device() == mx.Device(mx.cpu), mx.metal.is_available()
    device = "cpu" if on_cpu else "metal" if on_metal else "cuda"
    return {"mlx": version("mlx"), "mlx-lm": version("mlx-lm"), "device": device}


def _connected(group: mx.distributed.Group, say: Say) -> Channel:
    """Rank 0 invites the others over MLX's own connections, with a secret that nobody else can know."""
    rank, name = group.rank(), socket.gethostname()
    if rank:
        invitation = json.loads(_of_first(group, b""))
        connection = socket.create_connection((invitation["host"], invitation["port"]), LONGEST_S)
        connection.sendall(json.dumps([invitation["secret"], rank, name]).encode() + b"\n")
        connection.settimeout(None)
        sockets, hosts = {0: connection}, json.loads(_line(connection))
        return Channel(rank, hosts, sockets, say)
    address, secret = first_address() or name, secrets.token_hex(16)
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.settimeout(LONGEST_S)
        _of_first(group, json.dumps({"host": address, "port": listener.getsockname()[1], "secret": secret}).encode())
        sockets, hosts = dict[int, socket.socket](), {0: name}
        while len(sockets) < group.size() - 1:
            connection, _ = listener.accept()
            connection.settimeout(LONGEST_S)
            given, other, host = json.loads(_line(connection))
            if secrets.compare_digest(given, secret):
                connection.settimeout(None)
                sockets[other], hosts[other] = connection, host
    ordered = [hosts[each] for each in range(group.size())]
    for connection in sockets.values():
        connection.sendall(json.dumps(ordered).encode() + b"\n")
    return Channel(0, ordered, sockets, say)


def _of_first(group: mx.distributed.Group, given: bytes) -> bytes:
    """Bytes of rank 0, on all ranks."""
    buffer = np.zeros(BYTES, np.uint8)
    buffer[: len(given)] = np.frombuffer(given, np.uint8)
    return np.array(mx.distributed.all_sum(mx.array(buffer), group=group)).tobytes().rstrip(b"\0")


def _line(connection: socket.socket) -> bytes:
    """The next line, and nothing behind it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("a connection ended too early")
        line += byte
    return bytes(line)
