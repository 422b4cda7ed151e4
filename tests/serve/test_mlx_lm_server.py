"""Side by side with mlx_lm's own server: the same requests, with everything computed, the same answers."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import write_scripted_model

from lazymlx import LazyConfig

httpx = pytest.importorskip("httpx")

LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CALL = ("<tool_call>", '{"name": "look_up", ', '"arguments": {"place": "pier"}}', "</tool_call>")
SAID = ("<think>", "Where?", "</think>", "Let me look. ", *CALL)


def chat(*texts: str, **more) -> tuple[str, dict]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return "/v1/chat/completions", {"messages": messages, "max_tokens": 12, "temperature": 0, **more}


REQUESTS = {
    "short": chat("Who keeps the lamp?"),
    "long": chat("The keeper lights the green lamp before the harbour is dark. " * 40),
    "several turns": chat("Who keeps the lamp?", "Mara does.", "And who keeps the key?"),
    "a beginning of another": chat("Who keeps the lamp?", "Mara does.", "And where?"),
    "parts": chat("x", messages=[{"role": "user", "content": [{"type": "text", "text": "Which lamp is it?"}]}]),
    "system": chat("x", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]),
    "completion": ("/v1/completions", {"prompt": "The lamp of the", "max_tokens": 12, "temperature": 0}),
}


@pytest.fixture(scope="module")
def theirs(tiny_model_folder: Path) -> Iterator[str]:
    """Where mlx_lm's server is; it loads what a request names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(tiny_model_folder), "--port", str(port)]
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while True:
            try:
                httpx.get(f"{address}/health", timeout=1)
                break
            except httpx.TransportError:
                assert server.poll() is None and time.monotonic() < end
                time.sleep(0.1)
        yield address
        server.kill()


def said(address: str, path: str, body: dict) -> dict:
    done = httpx.post(address + path, json=body, headers={"Authorization": "Bearer secret"}, timeout=30)
    assert done.status_code == 200, done.text
    answer = done.json()
    [choice] = answer["choices"]
    message = choice.get("message") or {"content": choice["text"]}
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    usage = answer["usage"]
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    thought = message.get("reasoning") or ""
    return {
        "text": message["content"],
        "thought": thought,
        "calls": calls,
        "ended": choice["finish_reason"],
        "tokens": tokens,
    }


def test_the_same_requests_have_the_same_answers(theirs: str, serve: Callable, tiny_model_folder: Path) -> None:
    ours = serve(tiny_model_folder, lazy=LazyConfig.dense()).address
    for name, request in REQUESTS.items():
        assert said(ours, *request) == said(theirs, *request), name


def test_the_same_thoughts_are_had_and_the_same_calls_made(theirs: str, serve: Callable, tmp_path: Path) -> None:
    folder = write_scripted_model(tmp_path / "scripted", SAID)
    request = chat("Who keeps the lamp?", tools=[LOOK_UP], model=str(folder))
    answer = said(serve(folder, lazy=LazyConfig.dense()).address, *request)
    assert answer["calls"] == [("look_up", '{"place": "pier"}')] and answer["thought"] == "Where?"
    assert answer == said(theirs, *request)
