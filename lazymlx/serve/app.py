"""`make_app`: the routes. They speak HTTP, and leave every computation to the worker."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..documents import text_of_bytes
from ..errors import PromptError
from . import anthropic, chat, completions
from .answering import Answering
from .api import Api
from .encoding import RequestEncoder
from .page import page
from .request import Body, Refusal
from .responding import respond
from .worker import Worker

MOST_BYTES = 32 * 2**20  # of a body
NOBODY_READS = 499
MESSAGES = "/v1/messages"
APIS = {"/v1/chat/completions": chat.API, "/v1/completions": completions.API, MESSAGES: anthropic.API}
Handler = Callable[[HttpRequest], Awaitable[Response]]


@dataclass(frozen=True)
class Service:
    """What the routes speak for; `model` is the name that clients see."""

    worker: Worker
    answering: Answering
    encoder: RequestEncoder
    model: str
    api_key: str | None = None

    async def health(self, _: HttpRequest) -> Response:
        """Whether requests will be answered."""
        alive = self.worker.alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 503)

    async def models(self, request: HttpRequest) -> Response:
        """The one model, in OpenAI's and Anthropic's form at once."""
        self._check_key(request)
        entry = {"id": self.model, "object": "model", "created": 0, "owned_by": "lazymlx"}
        entry |= {"type": "model", "display_name": self.model, "created_at": "1970-01-01T00:00:00Z"}
        wanted = request.path_params.get("name")
        if wanted is None:
            ends = {"first_id": self.model, "last_id": self.model, "has_more": False}
            return JSONResponse({"object": "list", "data": [entry], **ends})
        if wanted != self.model:
            raise Refusal(404, f"model: this server has {self.model!r}, not {wanted!r}")
        return JSONResponse(entry)

    def answers(self, api: Api) -> Handler:
        """What answers by an interface."""

        async def answer(request: HttpRequest) -> Response:
            self._check_key(request)
            content = await _content(request)
            wanted, prompt = await asyncio.to_thread(self._understood, api, content)
            reply = api.reply(self.model, wanted, len(prompt.tokens))
            return await respond(request, self.worker, api, wanted, prompt, reply)

        return answer

    async def count_tokens(self, request: HttpRequest) -> Response:
        """How many tokens a conversation has."""
        self._check_key(request)
        content = await _content(request)
        tokens = await asyncio.to_thread(lambda: self.encoder.chat(anthropic.chat(_body(content))))
        return JSONResponse({"input_tokens": len(tokens)})

    async def page(self, _: HttpRequest) -> Response:
        """The page for people."""
        return HTMLResponse(page(self.model))

    async def document(self, request: HttpRequest) -> Response:
        """The text of a document."""
        self._check_key(request)
        content = await _content(request)
        try:
            return JSONResponse({"text": await asyncio.to_thread(text_of_bytes, content, "it")})
        except PromptError as error:
            raise Refusal(400, str(error)) from None

    async def conversations(self, request: HttpRequest) -> Response:
        """What is kept."""
        self._check_key(request)
        return JSONResponse(self.answering.conversations.listed)

    async def explained(self, request: HttpRequest) -> Response:
        """What the newest answer that was to be explained was computed from; who knows its name needs no key."""
        name, text = self.answering.explained
        if not name or request.path_params["name"] != name:
            raise Refusal(404, 'explained: of the newest answer alone, to a request with "explain": true')
        return HTMLResponse(text)

    def _understood(self, api: Api, content: bytes):
        """The request, and its prompt in tokens; both may take a while for 20 MB."""
        wanted = api.request(_body(content))
        return wanted, self.encoder.encode(wanted)

    def _check_key(self, request: HttpRequest) -> None:
        given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise Refusal(401, "authorization: expected 'Bearer' and the key that the server was started with")


def make_app(service: Service) -> Starlette:
    """The server's application."""
    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/lazymlx/document", service.document, methods=["POST"]),
            Route("/lazymlx/conversations", service.conversations),
            Route("/lazymlx/explained/{name}", service.explained),
            Route("/health", service.health),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.models),
            Route(f"{MESSAGES}/count_tokens", service.count_tokens, methods=["POST"]),
            *(Route(path, service.answers(api), methods=["POST"]) for path, api in APIS.items()),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_route, ClientDisconnect: _left},
    )


async def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    api = anthropic.API if request.url.path.startswith(MESSAGES) else chat.API
    return JSONResponse(api.refusal(error), error.status)


async def _no_route(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    response = await _refused(request, refusal)
    response.headers.update(error.headers or {})
    return response


async def _left(_: HttpRequest, error: Exception) -> Response:
    return Response(status_code=NOBODY_READS)


async def _content(request: HttpRequest) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise Refusal(413, f"body: expected at most {MOST_BYTES} bytes; send less")
    return bytes(content)


def _body(content: bytes) -> Body:
    """The JSON object that was sent."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"body: expected JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"body: expected a JSON object, got a {type(body).__name__}")
    return body
