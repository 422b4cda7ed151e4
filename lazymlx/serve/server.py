"""`Server`: uvicorn's, with its own idea of an end."""

from threading import Thread
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from .worker import Worker


class Server(uvicorn.Server):
    """Ctrl-C: no more requests; a second time: no more answers, either. The third one is uvicorn's own second."""

    def __init__(self, app: Starlette, worker: Worker):
        super().__init__(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._worker, self._asked = worker, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end."""
        self._asked += 1
        if self._asked == 2:
            Thread(target=self._worker.stop).start()  # this thread may hold the queue's lock
        else:
            super().handle_exit(sig, frame)
