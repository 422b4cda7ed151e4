"""`respond`: hands a request to the worker, and its answer to the client, whole or piece by piece.

A client that goes away is noticed at once, whatever is under way; one that reads slowly holds nobody up but itself.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..progress import Progress
from .answer import Piece, Told
from .api import Api, Reply, event
from .encoding import EncodedRequest
from .job import Job
from .request import Refusal, Request
from .worker import Worker

KEEP_ALIVE_S = 5.0
KEEP_ALIVE = ": waiting\n\n"  # a comment, which clients pass over
GONE = Refusal(499, "the client went away")


async def respond(
    request: HttpRequest, worker: Worker, api: Api, wanted: Request, prompt: EncodedRequest, reply: Reply
) -> Response:
    """The response to a request.

    Raises:
        Refusal: of the worker, unless the response has begun.
    """
    told: asyncio.Queue[Told] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(what: Told) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(told.put_nowait, what)

    job = Job(wanted, prompt, tell)
    worker.submit(job)
    watch = asyncio.create_task(_watch(request, job, told))  # ends with the response, too
    if wanted.stream:
        return StreamingResponse(_stream(told, api, reply, watch), media_type="text/event-stream")
    return await _whole(told, reply)


async def _watch(request: HttpRequest, job: Job, told: asyncio.Queue[Told]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancelled.set()
    told.put_nowait(GONE)


async def _whole(told: asyncio.Queue[Told], reply: Reply) -> Response:
    pieces = list[Piece]()
    while not pieces or not pieces[-1].end:
        what = await told.get()
        if isinstance(what, Refusal):
            raise what
        if isinstance(what, Piece):
            pieces.append(what)
    return JSONResponse(reply.whole(pieces))


async def _stream(told: asyncio.Queue[Told], api: Api, reply: Reply, watch: asyncio.Task[None]) -> AsyncIterator[str]:
    """The events of an answer; as long as they are wanted, the connection is watched."""
    for opening in reply.opening():
        yield opening
    while not watch.done():
        try:
            what = await asyncio.wait_for(told.get(), KEEP_ALIVE_S)
        except TimeoutError:
            yield KEEP_ALIVE
            continue
        match what:
            case Refusal():
                yield event(api.refusal(what), api.refused)
                return
            case Progress():
                events = reply.progress(what)
            case Piece():
                events = reply.piece(what)
        for each in events:
            yield each
        if isinstance(what, Piece) and what.end:
            return
