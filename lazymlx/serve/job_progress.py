"""`JobProgress`: how far a prompt has been read."""

from time import perf_counter

from ..progress import Progress
from .job import Job


class JobProgress:
    """Turns the progress of a prompt, that is read in parts and then answered, into reports to its client.

    Args:
        cached: tokens that were there before.
        work: of each stage; reading is the first one's.
    """

    def __init__(self, job: Job, cached: int, work: list[int]):
        self._job, self._cached, self._new = job, cached, len(job.prompt.tokens) - cached
        self._read_share, self._done, self._started = work[0] / sum(work), 0.0, perf_counter()

    def part_read(self, progress: Progress) -> bool:
        """Part of the prompt is read; False if nobody waits for it."""
        return self._report(self._share(progress.processed))

    def has_read(self, position: int) -> None:
        """All that is read before the answer."""
        self._done = self._share(position)

    def answering(self, progress: Progress) -> bool:
        """The rest of the prompt is read, and computed behind the cuts."""
        return self._report(self._done + (1 - self._done) * progress.fraction)

    def _share(self, position: int) -> float:
        return self._read_share * (position - self._cached) / self._new

    def _report(self, share: float) -> bool:
        if self._job.request.progress:
            total, elapsed = self._cached + self._new, (perf_counter() - self._started) * 1000
            self._job.send(Progress(total, self._cached, self._cached + int(share * self._new), elapsed))
        return not self._job.cancelled.is_set()
