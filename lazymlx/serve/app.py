"""`make_app`: the routes. They speak HTTP, and leave every computation to the worker."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from . import openai
from .request import Body, Refusal
from .worker import Job, Piece, Worker

MOST_BYTES = 32 * 2**20  # of a body
LOOK_S = 0.1  # how soon it is noticed that a client went away
KEEP_ALIVE_S = 5.0


def make_app(worker: Worker, model: str, api_key: str | None = None) -> Starlette:
    """The server's application; `model` is the name that clients see."""

    async def health(_: HttpRequest) -> Response:
        return JSONResponse({"status": "ok" if worker.alive else "dead"}, 200 if worker.alive else 503)

    async def models(request: HttpRequest) -> Response:
        _check_key(request, api_key)
        entry = {"id": model, "object": "model", "created": 0, "owned_by": "lazymlx"}
        wanted = request.path_params.get("name")
        if wanted not in (None, model):
            raise Refusal(404, f"model: this server has {model!r}, not {wanted!r}")
        return JSONResponse({"object": "list", "data": [entry]} if wanted is None else entry)

    async def chat(request: HttpRequest) -> Response:
        _check_key(request, api_key)
        wanted = openai.request(await _body(request))
        pieces: asyncio.Queue[Piece | Refusal] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(piece: Piece | Refusal) -> None:
            if not job.cancelled.is_set():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job, reply = Job(wanted, tell), openai.Reply(model)
        worker.submit(job)
        if wanted.stream:
            return StreamingResponse(_stream(job, pieces, reply), media_type="text/event-stream")
        return await _whole(request, job, pieces, reply)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_route},
    )


async def _refused(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(openai.error(error), error.status)


async def _no_route(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(openai.error(refusal), refusal.status, error.headers)


def _check_key(request: HttpRequest, api_key: str | None) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if api_key is not None and not hmac.compare_digest(given.encode(), api_key.encode()):
        raise Refusal(401, "authorization: expected 'Bearer' and the key that the server was started with")


async def _body(request: HttpRequest) -> Body:
    """The JSON object that was sent."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise Refusal(413, f"body: expected at most {MOST_BYTES} bytes; send less")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"body: expected JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"body: expected a JSON object, got a {type(body).__name__}")
    return body


async def _whole(request: HttpRequest, job: Job, pieces: asyncio.Queue, reply: openai.Reply) -> Response:
    text = ""
    try:
        while not await request.is_disconnected():
            try:
                piece = await asyncio.wait_for(pieces.get(), LOOK_S)
            except TimeoutError:
                continue
            if isinstance(piece, Refusal):
                raise piece
            text += piece.text
            if piece.finish_reason is not None:
                return JSONResponse(reply.whole(text, piece))
        return Response(status_code=499)  # nobody reads it
    finally:
        job.cancelled.set()


async def _stream(job: Job, pieces: asyncio.Queue, reply: openai.Reply) -> AsyncIterator[str]:
    try:
        yield _event(reply.opening())
        while True:
            try:
                piece = await asyncio.wait_for(pieces.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield ": waiting\n\n"
                continue
            if isinstance(piece, Refusal):
                yield _event(openai.error(piece))
                break
            if piece.text or piece.finish_reason:
                yield _event(reply.chunk(piece))
            if piece.finish_reason:
                if job.request.include_usage:
                    yield _event(reply.closing(piece))
                break
        yield "data: [DONE]\n\n"
    finally:
        job.cancelled.set()


def _event(body: Body) -> str:
    return f"data: {json.dumps(body)}\n\n"
