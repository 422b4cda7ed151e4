"""`lazymlx serve`: a local server for chat clients that speak OpenAI's or Anthropic's interface, and for browsers."""

import argparse
import ipaddress
import socket
from pathlib import Path

from ..config import MOST
from ..errors import RunError, UsageError
from . import options, values
from .notes import EMBEDDED
from .party import speaks
from .terminal import say

MOST_CONVERSATIONS = 8
ON_DISK = 8  # times as many conversations as in memory
MOST_TOKENS = 8192


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
    server.add_argument(
        "--cache-dir",
        type=Path,
        metavar="PATH",
        help="a folder for conversations that are too many, to come back faster than they are read",
    )
    server.add_argument(
        "--moved",
        type=values.number(float, 0, 1),
        metavar="SHARE",
        help="of a long text that was read before in another place, read this share again, and at least its first 64 "
        "tokens; the first layers' work on the rest is taken over. Quicker, and not exact (default: read all of it)",
    )
    generation = parser.add_argument_group("generation")
    generation.add_argument(
        "--max-tokens",
        type=values.number(int, 1, MOST),
        default=MOST_TOKENS,
        metavar="N",
        help="most tokens of an answer, whatever a client asks for (default: %(default)s)",
    )
    options.add_prefill_flags(generation)
    options.add_lazy_flags(parser.add_argument_group("what to compute"))


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    lazy = options.lazy_config(args)
    if args.cache_dir is not None and args.ranks is not None:
        raise UsageError("--cache-dir: several ranks keep conversations in memory alone; leave it out")
    if not args.api_key and not _is_loopback(args.host):
        raise UsageError(f"--host: {args.host} can be reached from other machines; add --api-key KEY")
    try:
        from ..serve.app import Service, make_app
        from ..serve.server import Server
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: it needs {error.name}; pip install 'lazymlx[serve]'") from None
    from ..loading.hub import find
    from ..loading.load import load
    from ..serve.answering import Answering
    from ..serve.conversations import Conversations
    from ..serve.disk import Disk
    from ..serve.encoding import RequestEncoder
    from ..serve.following import follow
    from ..serve.worker import Worker
    from ..wired import WIRED

    listener = listen(args.host, args.port) if speaks(args) else None
    name = "embedded" if args.model is None else Path(args.model).name
    model, tokenizer = load(str(find(options.model_name(args))), lazy, warm=True, **options.loading(args))
    if args.moved is not None and not model.shiftable:
        if listener is not None:
            listener.close()
        raise UsageError("--moved: this model's keys depend on more than the place of a token; leave it out")
    disk = args.cache_dir and Disk(args.cache_dir, model, ON_DISK * args.max_conversations)
    conversations = Conversations(model, args.max_conversations, disk, args.moved)
    answering = Answering(model, tokenizer, conversations, options.step_size(args), args.max_memory)
    if listener is None:
        with WIRED.held():
            follow(answering, model.ranks)
        return 0

    def end() -> None:
        server.should_exit = True

    worker = Worker(answering, on_death=end, ranks=model.ranks)
    service = Service(
        worker, answering, RequestEncoder(tokenizer, model.max_positions, args.max_tokens), name, args.api_key
    )
    server = Server(make_app(service), worker)
    if args.model is None:
        say(EMBEDDED)
    _introduce(f"http://{_authority(*listener.getsockname()[:2])}", name, args.api_key is not None)
    try:
        with WIRED.held():
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # which the server has handled already
    finally:
        worker.close()
    if worker.died:
        raise RunError(f"the device computes no more: {worker.died}; start the server again")
    return 0


def _introduce(address: str, name: str, key: bool) -> None:
    """What a person needs in order to point a client at the server."""
    say(f"serving {name} at {address}; Ctrl-C ends it after the answers under way, twice at once")
    say(f"OpenAI clients: base URL {address}/v1, model {name}, API key {'yours' if key else 'any text'}")
    say(f"Anthropic clients: ANTHROPIC_BASE_URL={address} ANTHROPIC_API_KEY={'KEY' if key else 'any'}")
    header = "-H 'Authorization: Bearer KEY' " if key else ""
    say(f"a browser: {address}/ and a shell: curl {header}{address}/v1/models")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
        listener.listen()  # who connects before the server takes up its work waits, and is not refused
    except OSError as error:
        listener.close()
        raise RunError(f"--host, --port: {host}:{port} cannot be listened at: {error.strerror}") from None
    return listener
