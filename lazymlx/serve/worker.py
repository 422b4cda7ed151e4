"""`Worker`: the one thread that computes. Requests wait in a queue, first in, first out."""

from collections.abc import Callable
from queue import Empty, Queue
from threading import Event, Thread

import mlx.core as mx

from ..errors import Cancelled, UsageError
from ..ranks.group import ALONE, Ranks
from .answering import Answering
from .following import described
from .job import Job
from .request import Refusal

MOST_WAITING = 1000


class Worker:
    """Answers jobs until it is closed or dies.

    Args:
        on_death: is called, on the worker's thread, if it can compute no more.
        ranks: that follow, see `follow`.
    """

    def __init__(self, answering: Answering, on_death: Callable[[], None] = lambda: None, ranks: Ranks = ALONE):
        self._answering, self._on_death, self._ranks = answering, on_death, ranks
        self._jobs: Queue[Job | None] = Queue(MOST_WAITING)
        self._closed, self.died = Event(), ""  # of what
        self._current: Job | None = None
        self._thread = Thread(target=self._work, name="lazymlx-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests will be answered."""
        return not self.died and not self._closed.is_set()

    @property
    def waiting(self) -> int:
        """Requests whose answers have not begun."""
        return self._jobs.qsize()

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Refusal: there are too many, or nobody will do it.
        """
        if not self.alive:
            raise _gone()
        if self._jobs.full():
            raise Refusal(429, f"{MOST_WAITING} requests wait already; try again later")
        self._jobs.put(job)
        if not self.alive:  # since: it may have been the last to come
            self._refuse_waiting()

    def stop(self) -> None:
        """Cut the answer under way short, and refuse all others."""
        self._closed.set()
        if (job := self._current) is not None:
            job.cancelled.set()
        self._refuse_waiting()
        self._jobs.put(None)

    def close(self) -> None:
        """End, and wait for it."""
        self.stop()
        self._thread.join()

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._current = job
                if self._closed.is_set():  # looked at after `_current` is set: `stop` does it the other way round
                    job.send(_gone())
                elif not job.cancelled.is_set():
                    self._serve(job)
                self._current = job = None
            self._ranks.decided("job", lambda: None)
        except BaseException as error:
            self.died = f"{type(error).__name__}: {error}"
            self._on_death()
        finally:
            self._refuse_waiting()

    def _serve(self, job: Job) -> None:
        self._ranks.decided("job", lambda: described(job))
        try:
            self._answering.answer(job)
        except Cancelled:
            job.send(_gone())  # if its client is there still, the server is ending
        except UsageError as error:
            job.send(Refusal(400, str(error)))
        except Exception as error:  # a bug in one answer must not end all later ones
            job.send(Refusal(500, f"the answer failed: {type(error).__name__}"))
            if self._ranks.size > 1:  # the others are still at it
                raise
            mx.eval(mx.zeros(1) + 1)  # but a device that computes no more does
        except BaseException:
            job.send(_gone())
            raise

    def _refuse_waiting(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None:
                job.send(_gone())


def _gone() -> Refusal:
    return Refusal(503, "this server answers no more; it is ending")
