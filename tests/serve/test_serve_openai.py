"""The real `openai` client, and malformed bodies, against a live server."""

from collections.abc import Iterator

import pytest

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

ASKED = {"model": "any", "temperature": 0, "max_tokens": 8}


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(address: str) -> Iterator:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
        yield client


@pytest.fixture
def http(address: str) -> Iterator:
    with httpx.Client(base_url=address, headers={"Authorization": "Bearer secret"}, timeout=20) as client:
        yield client


def test_an_answer_whole_and_streamed_is_the_same(client) -> None:
    whole = client.chat.completions.create(messages=user("Who keeps the lamp?"), **ASKED)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(messages=user("Who keeps the lamp?"), **ASKED, **options))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8


def test_a_conversation_goes_on_from_what_was_computed(client) -> None:
    first = user("The keeper lights the green lamp first. " * 20)
    answer = client.chat.completions.create(messages=first, **ASKED)
    said = {"role": "assistant", "content": answer.choices[0].message.content}
    second = client.chat.completions.create(messages=[*first, said, *user("And then?")], **ASKED)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert answer.usage.prompt_tokens - 10 < cached < second.usage.prompt_tokens


def test_a_stop_text_ends_the_answer_and_is_not_said(client) -> None:
    whole = client.chat.completions.create(messages=user("Stop?"), **ASKED).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    cut = client.chat.completions.create(messages=user("Stop?"), stop=[stop], **ASKED).choices[0]
    assert cut.message.content == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def test_models_and_health(client, http) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert http.get("/health").json() == {"status": "ok"}
    with pytest.raises(openai.NotFoundError, match="other"):
        client.models.retrieve("other")


def test_a_wrong_key_is_refused(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="guess", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        ({}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"messages": user("x"), "temperature": "hot"}, "temperature"),
        ({"messages": user("x"), "max_tokens": 0}, "max_tokens"),
        ({"messages": user("x"), "n": 2}, "n:"),
        ({"messages": user("x"), "tools": [{}]}, "tools"),
        ({"messages": user("x"), "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_body_that_cannot_be_served_is_refused_by_a_sentence(http, body, says: str) -> None:
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = http.post("/v1/chat/completions", **given)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


def test_a_client_that_goes_away_does_not_hold_up_the_next(http, client) -> None:
    endless = {"messages": user("Go on. " * 200), "stream": True, "temperature": 0}
    with http.stream("POST", "/v1/chat/completions", json=endless) as response:
        next(response.iter_lines())
    assert client.chat.completions.create(messages=user("Next?"), timeout=10, **ASKED).usage.completion_tokens == 8


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/v2", 404)])
def test_what_is_no_route_is_refused_in_json(http, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status and path in response.json()["error"]["message"]
