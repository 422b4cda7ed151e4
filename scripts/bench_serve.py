#!/usr/bin/env python3
"""Time to the first token of ten questions about a document, through a socket, beside mlx_lm's server.

Three ways in which clients put a document into a conversation: first, with the questions after it; into the newest
message of all, as chat windows with retrieval do; two documents, whose order is another one with every question. The
servers have the same float32 weights and keep their default caches; ours runs twice, once with `--moved`, which goes on
from what it has read in another place. They take turns, question by question, and those that have not the turn compute
nothing. Prints a table, and one line of JSON last.

    python scripts/bench_serve.py --tokens 2048
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
from mlx_lm.convert import convert
from mlx_lm.utils import load_tokenizer
from rich.console import Console
from rich.table import Table

from lazymlx import demo
from lazymlx.bench.serving import HEADS, KIND, rows
from lazymlx.machine import machine

PATIENCE_S = 300
MOVED = "0.1"  # of a text that was read in another place: read again
Message = dict[str, str]


@dataclass
class Way:
    """What one server did with one kind of conversation: a number for each question."""

    server: str
    way: str
    ttft_s: list[float] = field(default_factory=list)
    cpu_s: list[float | None] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    cached_tokens: list[int] = field(default_factory=list)


class Asked(NamedTuple):
    """An answer, the seconds to its first token, and the tokens of its prompt."""

    text: str
    ttft_s: float
    cpu_s: float | None
    prompt_tokens: int
    cached_tokens: int


@contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server; its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    with subprocess.Popen([sys.executable, "-m", *command, "--port", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                try:
                    httpx.get(f"{address}/health")
                    break
                except httpx.TransportError:
                    if server.poll() is not None or time.monotonic() > end:
                        raise SystemExit(f"bench_serve: error: {name} did not start") from None
                    time.sleep(0.2)
            yield address, server.pid
        finally:
            server.kill()


def cpu_s(pid: int) -> float | None:
    """Seconds that a process has computed for, which others on the machine do not stretch; None where nobody tells."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    after_name = stat.read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def ask(address: str, pid: int, model: str, messages: list[Message], max_tokens: int) -> Asked:
    """Put a question to a server."""
    body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    text, first, usage, computed, start = "", None, {}, cpu_s(pid), time.perf_counter()
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        if response.is_error:
            raise SystemExit(f"bench_serve: error: {address}: {response.status_code} {response.read().decode()}")
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            usage = event.get("usage") or usage
            said = event["choices"][0]["delta"].get("content") if event["choices"] else None
            if said:
                first = first or (time.perf_counter() - start, cpu_s(pid))
                text += said
    seconds, computed_then = first or (time.perf_counter() - start, cpu_s(pid))
    spent = None if computed is None or computed_then is None else computed_then - computed
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Asked(text, seconds, spent, usage["prompt_tokens"], cached)


def document_first(documents: list[str], questions: list[str], answers: list[str]) -> list[Message]:
    """The conversation goes on behind the document."""
    asked = [f"{documents[0]}\n\nQuestion: {questions[0]}", *(f"Question: {question}" for question in questions[1:])]
    return conversation(asked, answers)


def newest_message(documents: list[str], questions: list[str], answers: list[str]) -> list[Message]:
    """The document stands in the newest message, and in no other."""
    *earlier, newest = questions
    return conversation([*earlier, f"{documents[0]}\n\nQuestion: {newest}"], answers)


def swapped(documents: list[str], questions: list[str], answers: list[str]) -> list[Message]:
    """Each question is the first one, about two documents, in one order and then the other."""
    ordered = documents[1:] if len(questions) % 2 else documents[:0:-1]
    return conversation(["\n\n".join([*ordered, f"Question: {questions[-1]}"])], [])


def conversation(asked: list[str], answers: list[str]) -> list[Message]:
    """Questions and the answers to all but the last."""
    messages = []
    for i, content in enumerate(asked):
        messages.append({"role": "user", "content": content})
        if i < len(asked) - 1:
            messages.append({"role": "assistant", "content": answers[i]})
    return messages


WAYS: dict[str, Callable[[list[str], list[str], list[str]], list[Message]]] = {
    "document first": document_first,
    "document in the newest message": newest_message,
    "two documents, swapped": swapped,
}


def documents_of(folder: Path, tokens: int) -> list[str]:
    """A document of so many tokens; and two that are its halves."""
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(demo.document(), add_special_tokens=False)
    whole = (ids * (tokens // len(ids) + 1))[:tokens]
    return [tokenizer.decode(part) for part in (whole, whole[: tokens // 2], whole[tokens // 2 :])]


def measure(servers: dict[str, tuple[str, int, str]], documents: list[str], count: int, max_tokens: int) -> list[Way]:
    """All ways of all servers, in turns; `servers` are addresses, processes and what they call the model."""
    facts = [question["question"] for question in demo.questions() if question["kind"] == "fact"]
    results = []
    for way, messages_of in WAYS.items():
        own = [f"{way}.\n\n{document}" for document in documents]  # nothing of another way's is found again
        found = {name: (Way(name, way), list[str]()) for name in servers}
        for n in range(1, count + 1):
            questions = [facts[i % len(facts)] for i in range(n)]
            for name, server in servers.items():
                result, answers = found[name]
                asked = ask(*server, messages_of(own, questions, answers), max_tokens)
                answers.append(asked.text)
                result.ttft_s.append(asked.ttft_s)
                result.cpu_s.append(asked.cpu_s)
                result.prompt_tokens.append(asked.prompt_tokens)
                result.cached_tokens.append(asked.cached_tokens)
        results += [result for result, _ in found.values()]
        print(f"{way}: done", file=sys.stderr)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=demo.MODEL, help="a model's folder (default: the embedded model)")
    parser.add_argument("--name", default="the embedded model", help="what to call it (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2048, help="of the document (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=12)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        weights = Path(folder) / "float32"
        convert(str(args.model), str(weights), dequantize=True, dtype="float32")
        ours = ["lazymlx.serve", "--model", str(args.model)]
        commands = {
            "lazymlx serve": (ours, "any"),
            f"lazymlx serve --moved {MOVED}": ([*ours, "--moved", MOVED], "any"),
            "mlx_lm.server": (["mlx_lm", "server", "--model", str(weights)], str(weights)),
        }
        servers = {
            name: (*stack.enter_context(running(name, command)), model) for name, (command, model) in commands.items()
        }
        results = measure(servers, documents_of(args.model, args.tokens), args.questions, args.max_tokens)
    what = {"model": args.name, "tokens": args.tokens, "max_tokens": args.max_tokens}
    run = {"kind": KIND, "machine": machine(), "run": what, "results": [asdict(result) for result in results]}
    table = Table(*HEADS)
    for row in rows(run):
        table.add_row(*row)
    Console(width=150).print(table)
    print(json.dumps(run))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
