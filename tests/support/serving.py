"""A server in this process, on a free port, that clients can speak to."""

import threading
import time
from pathlib import Path

import uvicorn

from lazymlx import LazyConfig, load
from lazymlx.cli.serve import listen
from lazymlx.serve.answering import Answering
from lazymlx.serve.app import Service, make_app
from lazymlx.serve.conversations import Conversations
from lazymlx.serve.encoding import Encoder
from lazymlx.serve.worker import Worker


class Served:
    """A model's folder, served inside of the context at `address`."""

    def __init__(self, folder: Path, lazy: LazyConfig | None = None, *, conversations: int = 4, step_size: int = 64):
        self.model, self.tokenizer = load(str(folder), lazy or LazyConfig())
        self.conversations = Conversations(self.model, conversations)
        self.worker = Worker(Answering(self.model, self.tokenizer, self.conversations, step_size))
        service = Service(self.worker, Encoder(self.tokenizer, self.model.max_positions, 2000), "tiny", "secret")
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
