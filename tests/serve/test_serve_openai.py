"""The real `openai` client, and malformed bodies, against a live server."""

from collections.abc import Iterator

import pytest

httpx = pytest.importorskip("httpx")

ASKED = {"model": "any", "temperature": 0, "max_tokens": 8}


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(openai, address: str) -> Iterator:
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


def test_log_probabilities_are_those_of_what_was_said(client) -> None:
    options = {"logprobs": True, "top_logprobs": 3, **ASKED}
    whole = client.chat.completions.create(messages=user("Likely?"), **options).choices[0]
    tokens = whole.logprobs.content
    assert "".join(token.token for token in tokens).lstrip() == whole.message.content
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in tokens)  # at temperature 0
    chunks = client.chat.completions.create(messages=user("Likely?"), stream=True, **options)
    streamed = [token for c in chunks if c.choices[0].logprobs for token in c.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens]


def test_what_an_answer_cost_is_told(client) -> None:
    cost = client.chat.completions.create(messages=user("Dear?"), **ASKED).usage.lazymlx
    assert cost["ttft_s"] > cost["queued_s"] >= 0 and cost["computed_fraction"] == 1 and cost["mode"] == "dense"


def test_a_seed_makes_an_answer_repeatable(client) -> None:
    options = {**ASKED, "temperature": 1, "top_p": 0.9}
    once, again, other = (
        client.chat.completions.create(messages=user("Guess."), seed=seed, **options).choices[0].message.content
        for seed in (-1, -1, 2)
    )
    assert once == again != other


def test_a_completion_goes_on_from_a_text_or_tokens(client) -> None:
    whole = client.completions.create(prompt="The lamp", logprobs=2, **ASKED)
    chunks = list(client.completions.create(prompt=["The lamp"], stream=True, **ASKED))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "length"
    assert "".join(whole.choices[0].logprobs.tokens).lstrip() == whole.choices[0].text
    assert client.completions.create(prompt=[1, 300, 301], **ASKED).usage.prompt_tokens == 3


def test_how_far_a_prompt_was_read_is_told_on_request(client) -> None:
    asked = {"messages": user("The keeper lights the lamp. " * 40), "stream": True, **ASKED}
    chunks = client.chat.completions.create(**asked, extra_body={"return_progress": True})
    told = [chunk.prompt_progress for chunk in chunks if hasattr(chunk, "prompt_progress")]
    assert [report["processed"] for report in told] == sorted(report["processed"] for report in told)
    assert told[-1]["processed"] == told[-1]["total"]


def test_a_message_of_calls_alone_needs_no_content(client) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = [*user("Look."), {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert client.chat.completions.create(messages=[*said, *user("And?")], **ASKED).usage.completion_tokens == 8


def test_models_and_health(openai, client, http) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert http.get("/health").json() == {"status": "ok"}
    with pytest.raises(openai.NotFoundError, match="other"):
        client.models.retrieve("other")


def test_a_wrong_key_is_refused(openai, address: str) -> None:
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
        ({"messages": user("x"), "tools": [{}]}, "tools[0]"),
        ({"messages": user("x"), "tools": [{"type": "function", "function": {"name": "f"}}]}, "template"),
        ({"messages": user("x"), "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0]"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ({"messages": user("word " * 5000)}, "4096 positions"),
        ({"messages": user("x"), "stream": True, "stream_options": 1}, "stream_options"),
        ({"messages": user("x"), "logit_bias": {"x": 1}}, "logit_bias"),
        ({"messages": user("x"), "top_logprobs": 21}, "top_logprobs"),
        ({"messages": user("x"), "chat_template_kwargs": {"tokenize": False}}, "tokenize"),
        ({"messages": user("x"), "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_body_that_cannot_be_served_is_refused_by_a_sentence(http, body, says: str) -> None:
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = http.post("/v1/chat/completions", **given)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [9**9], ["x", 1]])
def test_a_prompt_that_is_none_is_refused(openai, client, prompt) -> None:
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.completions.create(prompt=prompt, **ASKED)


def test_a_client_that_goes_away_does_not_hold_up_the_next(http, client) -> None:
    endless = {"messages": user("Go on. " * 200), "stream": True, "temperature": 0}
    with http.stream("POST", "/v1/chat/completions", json=endless) as response:
        next(response.iter_lines())
    assert client.chat.completions.create(messages=user("Next?"), timeout=10, **ASKED).usage.completion_tokens == 8


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/v2", 404)])
def test_what_is_no_route_is_refused_in_json(http, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status and path in response.json()["error"]["message"]
