"""`lazymlx serve`: a local server for chat clients that speak OpenAI's interface."""

import argparse
import ipaddress
import socket
from pathlib import Path

from ..errors import RunError, UsageError
from . import options, values
from .terminal import say

MOST_CONVERSATIONS = 8
DRAIN_S = 5  # of answers under way, after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx serve`."""
    options.add_model_flags(parser.add_argument_group("model"))
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    server.add_argument(
        "--port",
        type=values.number(int, 0, 65535),
        default=8080,
        metavar="N",
        help="0: any that is free (default: %(default)s)",
    )
    server.add_argument("--api-key", metavar="KEY", help="what clients must send; required beyond this machine")
    server.add_argument(
        "--max-conversations",
        type=values.number(int, 1, 1000),
        default=MOST_CONVERSATIONS,
        metavar="N",
        help="conversations to keep, the ones used last (default: %(default)s)",
    )
    options.add_prefill_flags(parser.add_argument_group("generation"))
    options.add_lazy_flags(parser.add_argument_group("what to compute"))


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    lazy = options.lazy_config(args)
    if not args.api_key and not _is_loopback(args.host):
        raise UsageError(f"--host: {args.host} can be reached from other machines; add --api-key KEY")
    try:
        import uvicorn

        from ..serve.app import make_app
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: it needs {error.name}; pip install 'lazymlx[serve]'") from None
    from ..loading.hub import find
    from ..loading.load import load
    from ..serve.worker import Worker

    listener = listen(args.host, args.port)
    name = "embedded" if args.model is None else Path(args.model).name
    model, tokenizer = load(str(find(options.model_name(args))), lazy, **options.loading(args))
    worker = Worker(model, tokenizer, args.max_conversations, options.step_size(args), args.max_memory)
    config = uvicorn.Config(
        make_app(worker, name, args.api_key),
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_S,
    )
    host, port = listener.getsockname()[:2]
    say(f"serving {name} at http://{host}:{port}/v1; Ctrl-C ends it")
    say(f"clients: base URL http://{host}:{port}/v1, model {name}, API key {'yours' if args.api_key else 'any text'}")
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to; taken before the model is loaded, which may take long."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RunError(f"--host, --port: {host}:{port} cannot be listened at: {error.strerror}") from None
    return listener
