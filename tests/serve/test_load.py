"""Many clients, and unkind ones: no wrong answer, no dead worker, nothing that grows."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lazymlx.serve.encoding import EncodedRequest
from lazymlx.serve.job import Job
from lazymlx.serve.request import Refusal, Request
from lazymlx.serve.worker import Worker

httpx = pytest.importorskip("httpx")

KEY = {"Authorization": "Bearer secret"}
CHAT = "/v1/chat/completions"


def body(text: str, **options) -> dict:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 2, **options}


def answer(address: str, text: str) -> str:
    done = httpx.post(address + CHAT, json=body(text), headers=KEY, timeout=20)
    return done.json()["choices"][0]["message"]["content"]


def test_a_hundred_clients_at_once_get_their_own_answers(address: str) -> None:
    texts = [f"Who keeps lamp {n}?" for n in range(10)]
    alone = {text: answer(address, text) for text in texts}
    assert len(set(alone.values())) > 5

    async def all_at_once() -> list[str]:
        async with httpx.AsyncClient(base_url=address, headers=KEY, timeout=60) as client:
            replies = await asyncio.gather(*(client.post(CHAT, json=body(text)) for text in texts * 10))
        return [reply.json()["choices"][0]["message"]["content"] for reply in replies]

    assert asyncio.run(all_at_once()) == [alone[text] for text in texts * 10]


def test_a_thousand_clients_that_go_away_leave_nothing_behind(serve: Callable, tiny_model_folder: Path) -> None:
    served = serve(tiny_model_folder)
    expected, threads = answer(served.address, "Still there?"), threading.active_count()
    at = urlsplit(served.address)

    async def goes_away(n: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection(at.hostname, at.port)
            content = json.dumps(body(f"Go on {n}. " * (1 + n % 50), max_tokens=2000, stream=n % 2 == 0)).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode())
            writer.write(content[: len(content) // 2] if n % 7 == 0 else content)
            await writer.drain()
            if n % 3 == 0:
                await asyncio.sleep(0.01 * (n % 5))
            elif n % 2 == 0 and n % 7:
                await reader.readline()
            writer.close()

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(40)
        await asyncio.gather(*(goes_away(n, gate) for n in range(1000)))

    asyncio.run(all_of_them())
    assert answer(served.address, "Still there?") == expected
    assert served.worker.alive and served.worker.waiting == 0
    late = time.perf_counter() + 10
    while len(served.conversations.kept) > 4:  # let go of behind the answer, not before it
        assert time.perf_counter() < late
        time.sleep(0.005)
    assert threading.active_count() <= threads + 40  # the pool of those that tokenise


def test_a_client_that_goes_away_is_noticed_within_a_fifth_of_a_second(
    serve: Callable, tiny_model_folder: Path
) -> None:
    class Endless:
        """An answer that never comes."""

        def answer(self, job) -> None:
            begun.set()
            job.cancelled.wait(20)
            noticed.append(time.perf_counter())

    served, begun, noticed = serve(tiny_model_folder, answering=Endless()), threading.Event(), []
    for stream in (True, False):
        begun.clear()
        with httpx.Client(headers=KEY) as client:
            with pytest.raises(httpx.ReadTimeout):
                client.post(served.address + CHAT, json=body("Hello?", stream=stream), timeout=0.2)
            assert begun.wait(10)
            left = time.perf_counter()
        while served.worker.waiting or len(noticed) < 1 + (not stream):
            assert time.perf_counter() < left + 10
            time.sleep(0.005)
        assert noticed[-1] - left < 0.2


def test_who_waits_is_told_that_the_server_lives(
    serve: Callable, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        def answer(self, job) -> None:
            job.cancelled.wait(20)

    monkeypatch.setattr("lazymlx.serve.responding.KEEP_ALIVE_S", 0.02)
    address = serve(tiny_model_folder, answering=Endless()).address
    with httpx.Client(base_url=address, headers=KEY, timeout=20) as client:
        for path in (CHAT, "/v1/messages"):
            with client.stream("POST", path, json=body("Hello?", stream=True)) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines = (line for line in response.iter_lines() if line.startswith(":"))
                assert [next(lines), next(lines)] == [": waiting"] * 2


def test_first_in_is_first_out() -> None:
    class Noting:
        def answer(self, job) -> None:
            order.append(job.request.prompt)
            gate.wait(10)

    order, gate = [], threading.Event()
    worker = Worker(Noting())  # type: ignore[arg-type]
    told = []
    for n in range(20):
        worker.submit(Job(Request(str(n)), EncodedRequest([1], 0, 1), told.append))
    gate.set()
    while worker.waiting or len(order) < 20:
        time.sleep(0.001)
    assert order == [str(n) for n in range(20)]
    worker.close()
    with pytest.raises(Refusal):
        worker.submit(Job(Request("late"), EncodedRequest([1], 0, 1), told.append))


def test_a_slow_reader_holds_nobody_up(address: str) -> None:
    with httpx.Client(base_url=address, headers=KEY, timeout=30) as client:
        with client.stream("POST", CHAT, json=body("Slowly.", max_tokens=60, stream=True)) as slow:
            assert answer(address, "And me?")
            lines = [line for line in slow.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (json.dumps(body("x " * 10_000_000)), 400, "positions"),
        (json.dumps(body("Short.", metadata="x" * 20_000_000)), 200, None),
        (b"x" * (33 * 2**20), 413, "bytes"),
        (b'{"messages":' + b"[" * 1_000_000, 400, "JSON"),
    ],
    ids=["text", "ignored", "too much", "deep"],
)
def test_large_bodies(address: str, content, status: int, says: str | None) -> None:
    start = time.perf_counter()
    done = httpx.post(address + CHAT, content=content, headers=KEY, timeout=30)
    assert done.status_code == status
    assert says is None or says in done.json()["error"]["message"]
    assert time.perf_counter() - start < 10


def test_death_is_told_to_all(serve: Callable, tiny_model_folder: Path) -> None:
    class Dying:
        def answer(self, job) -> None:
            time.sleep(0.3)
            raise SystemExit("the device is gone")

    served = serve(tiny_model_folder, answering=Dying())

    async def some() -> list:
        async with httpx.AsyncClient(base_url=served.address, headers=KEY, timeout=20) as client:
            return await asyncio.gather(*(client.post(CHAT, json=body("Hello?")) for _ in range(5)))

    assert [reply.status_code for reply in asyncio.run(some())] == [503] * 5
    assert httpx.get(f"{served.address}/health").status_code == 503
    assert httpx.post(served.address + CHAT, json=body("Hello?"), headers=KEY).status_code == 503
    assert served.deaths == ["SystemExit: the device is gone"]


def test_a_bug_in_one_answer_ends_no_other(serve: Callable, tiny_model_folder: Path) -> None:
    class Failing:
        def answer(self, job) -> None:
            raise KeyError("/home/somebody/secret")

    served = serve(tiny_model_folder, answering=Failing())
    for _ in range(2):
        done = httpx.post(served.address + CHAT, json=body("Hello?"), headers=KEY)
        assert done.status_code == 500 and "secret" not in done.text
    assert httpx.get(f"{served.address}/health").status_code == 200
