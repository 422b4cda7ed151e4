"""`respond`: hands a request to the worker, and its answer to the client, complete or piece by piece.

A client that goes away is noticed at once, whatever is under way; one that reads slowly holds nobody up but itself.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..progress import Progress
from .answer import Piece, Update
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
    updates: asyncio.Queue[Update] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def send(update: Update) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(updates.put_nowait, update)

    job = Job(wanted, prompt, send)
    worker.submit(job)
    watch = asyncio.create_task(_watch(request, job, updates))  # ends with the response, too
    if wanted.stream:
        return StreamingResponse(_stream(updates, api, reply, watch), media_type="text/event-stream")
    return await _complete(updates, reply)


async def _watch(request: HttpRequest, job: Job, updates: asyncio.Queue[Update]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancelled.set()
    updates.put_nowait(GONE)


async def _complete(updates: asyncio.Queue[Update], reply: Reply) -> Response:
    pieces = list[Piece]()
    while not pieces or not pieces[-1].end:
        update = await updates.get()
        if isinstance(update, Refusal):
            raise update
        if isinstance(update, Piece):
            pieces.append(update)
    return JSONResponse(reply.complete(pieces))


async def _stream(
    updates: asyncio.Queue[Update], api: Api, reply: Reply, watch: asyncio.Task[None]
) -> AsyncIterator[str]:
    """The events of an answer; as long as they are wanted, the connection is watched."""
    for opening in reply.opening():
        yield opening
    while not watch.done():
        try:
            update = await asyncio.wait_for(updates.get(), KEEP_ALIVE_S)
        except TimeoutError:
            yield KEEP_ALIVE
            continue
        match update:
            case Refusal():
                yield event(api.refusal(update), api.refused)
                return
            case Progress():
                events = reply.progress(update)
            case Piece():
                events = reply.piece(update)
        for each in events:
            yield each
        if isinstance(update, Piece) and update.end:
            return
