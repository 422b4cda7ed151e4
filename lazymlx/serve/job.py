"""`Job`: a request on its way to an answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter

from .answer import Update
from .encoding import EncodedRequest
from .request import Request


@dataclass(frozen=True)
class Job:
    """A request in the queue; `send` is called on the worker's thread with every update."""

    request: Request
    prompt: EncodedRequest
    send: Callable[[Update], None]
    cancelled: Event = field(default_factory=Event)
    since: float = field(default_factory=perf_counter)
