"""`Channel`: a line from rank 0 to each of the others, beside MLX's own; JSON over TCP, one object a line.

Decisions go over it without waiting for a device. And it shows who is there: where a process ends, its connection does,
however it ended, while whoever waits for its arrays might wait for ever. So each connection has a thread that reads it,
and a rank that has lost another one ends at once, wherever it is.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from queue import Queue
from threading import Event, Lock, Thread
from typing import Any

from ..errors import RunError

GRACE_S = 2.0  # for a rank to end by itself, once another one has
QUIET_S, ASK_S, ASKS = 2, 1, 3  # seconds until a silent host is asked whether it is there, how often, how many times

Say = Callable[[str], None]


class Channel:
    """The connections of one rank.

    Args:
        rank: this one's.
        hosts: names of all ranks' hosts.
        sockets: by rank: rank 0 has one to each of the others, each of these one to rank 0.
        say: called with a line that says why all end.
    """

    def __init__(self, rank: int, hosts: Sequence[str], sockets: dict[int, socket.socket], say: Say):
        self.rank, self.hosts, self._say = rank, hosts, say
        self._sockets, self._received = sockets, {other: Queue[dict[str, Any]]() for other in sockets}
        self._ending, self._writing, self._listeners = Event(), Lock(), list[Thread]()
        for other, connection in sockets.items():
            keep_asking(connection)
            listener = Thread(target=self._listen, args=(other, connection), name=f"rank-{other}", daemon=True)
            self._listeners.append(listener)
            listener.start()

    def send(self, what: str, value: Any) -> None:
        """To the others."""
        self._write({"what": what, "value": value})

    def receive(self, what: str, other: int = 0) -> Any:
        """The value that another rank has sent under this name.

        Raises:
            RunError: it has sent something else.
        """
        message = self._received[other].get()
        found = message["what"]
        if found != what:
            raise RunError(
                f"rank {self.rank} waits for {what!r}, and rank {other} speaks of {found!r}; all ranks must run "
                "the same program"
            )
        return message["value"]

    def gather(self, what: str, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        if self.rank:
            self.send(what, value)
            return self.receive(what)
        values = [value, *(self.receive(what, other) for other in sorted(self._sockets))]
        self.send(what, values)
        return values

    def end(self, code: int, reason: str = "") -> None:
        """Send that this rank ends, and how, and wait a little for the others to send the same.

        Args:
            reason: of a failure that the others do not know of.
        """
        self._ending.set()
        self._write({"code": code, "reason": reason})
        for listener in self._listeners:
            listener.join(GRACE_S)
        for connection in self._sockets.values():
            connection.close()

    def let_others_end(self) -> None:
        """Behind a failure: it may only show that another rank has ended, and that one's reason comes first then."""
        time.sleep(GRACE_S)

    def _write(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._writing:
            for connection in self._sockets.values():
                try:
                    connection.sendall(line)
                except OSError:  # the thread that reads it will notice
                    pass

    def _listen(self, other: int, connection: socket.socket) -> None:
        try:
            with connection.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "code" in message:
                        self._follow(other, message["code"], message["reason"])
                        return
                    self._received[other].put(message)
        except OSError:
            pass
        self._lost(other)

    def _follow(self, other: int, code: int, reason: str) -> None:
        """Another rank ends: this one does too, unless it was rank 0 that had no more need of it."""
        if (self.rank == 0 and code == 0) or self._ending.wait(GRACE_S):
            return
        if self.rank == 0:
            self._say(f"error: rank {other} on {self.hosts[other]}: {reason or f'ended with exit code {code}'}")
            self._write({"code": code, "reason": ""})
        os._exit(code)

    def _lost(self, other: int) -> None:
        """Another rank is gone without a word."""
        if self._ending.is_set():
            return
        if self.rank in (0, 1):  # one of them is enough
            self._say(f"error: rank {other} on {self.hosts[other]} has ended or cannot be reached; all ranks end")
        if self.rank == 0:
            self._write({"code": RunError.exit_code, "reason": ""})
        os._exit(RunError.exit_code)


def keep_asking(connection: socket.socket) -> None:
    """Have a host that fell silent noticed within seconds, and small messages sent at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    quiet = socket.TCP_KEEPALIVE if sys.platform == "darwin" else socket.TCP_KEEPIDLE
    for option, value in ((quiet, QUIET_S), (socket.TCP_KEEPINTVL, ASK_S), (socket.TCP_KEEPCNT, ASKS)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
