"""What the other ranks do while rank 0 serves: each job that it takes up, in the same order; nothing is sent."""

from dataclasses import asdict
from typing import Any

from ..errors import Cancelled, UsageError
from ..ranks.group import Ranks
from .answer import Update
from .answering import Answering
from .encoding import EncodedRequest
from .job import Job
from .request import Chat, Request

Described = dict[str, Any]


def described(job: Job) -> Described:
    """A job, ready for JSON."""
    return {"request": asdict(job.request), "prompt": asdict(job.prompt)}


def follow(answering: Answering, ranks: Ranks) -> None:
    """Compute with rank 0 until it ends."""

    def no_more() -> Described | None:
        return None

    while (said := ranks.decided("job", no_more)) is not None:
        try:
            answering.answer(_job_of(said))
        except (Cancelled, UsageError):  # on rank 0 too, which sends it to the client
            pass


def _job_of(said: Described) -> Job:
    request, prompt = said["request"], said["request"]["prompt"]
    request = Request(**{**request, "prompt": Chat(**prompt) if isinstance(prompt, dict) else prompt})
    return Job(request, EncodedRequest(**said["prompt"]), _discard)


def _discard(update: Update) -> None:
    """Rank 0 sends it to the client."""
