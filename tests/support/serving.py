"""A server in this process: on a free port, that clients can speak to, or without a socket."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import uvicorn
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper

from lazymlx import LazyConfig, load
from lazymlx.cli.serve import listen
from lazymlx.engine.model import Model
from lazymlx.serve.answer import Update
from lazymlx.serve.answering import Answering
from lazymlx.serve.app import Service, make_app
from lazymlx.serve.conversations import Conversations
from lazymlx.serve.encoding import RequestEncoder
from lazymlx.serve.job import Job
from lazymlx.serve.request import Request
from lazymlx.serve.worker import Worker


class Served:
    """A model's folder, served inside of the context at `address`."""

    def __init__(self, folder: Path, lazy: LazyConfig | None = None, *, answering: Any = None):
        """Args: answering: in the place of the model's."""
        self.model, self.tokenizer = load(str(folder), lazy or LazyConfig())
        self.conversations = Conversations(self.model, 4)
        real = Answering(self.model, self.tokenizer, self.conversations, 64)
        self.worker = Worker(answering or real, on_death=lambda: self.deaths.append(self.worker.died))
        self.deaths: list[str] = []
        service = Service(
            self.worker, real, RequestEncoder(self.tokenizer, self.model.max_positions, 2000), "tiny", "secret"
        )
        self._server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="warning"))
        self._listener = listen("127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Served":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.worker.close()


class Answers:
    """What a server would answer, without one: everything that is told, in order."""

    def __init__(
        self,
        model: Model,
        tokenizer: TokenizerWrapper,
        *,
        max_memory: int | None = None,
        conversations: Conversations | None = None,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.conversations = conversations or Conversations(model, 4)
        self.encoder = RequestEncoder(tokenizer, model.max_positions, 2000)
        self._answering = Answering(model, tokenizer, self.conversations, 64, max_memory)

    def to(self, request: Request, leaves: Callable[[Update], bool] = lambda _: False) -> list[Update]:
        """The answer to a request, whose client goes away as soon as `leaves` says so."""
        told = list[Update]()

        def tell(what: Update) -> None:
            told.append(what)
            if leaves(what):
                job.cancelled.set()

        job = Job(request, self.encoder.encode(request), tell)
        self._answering.answer(job)
        return told

    @property
    def weights(self) -> list[mx.array]:
        return [w for _, w in tree_flatten(self.model.parameters()) if isinstance(w, mx.array)]
