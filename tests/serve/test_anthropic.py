"""The real `anthropic` client, and errors in its shape, against a live server."""

from collections.abc import Iterator

import pytest

httpx = pytest.importorskip("httpx")

ASKED = {"model": "claude-anything", "max_tokens": 8, "extra_body": {"temperature": 0}}
LAMP = [{"role": "user", "content": "Who keeps the lamp?"}]


@pytest.fixture(scope="module")
def client(anthropic, address: str) -> Iterator:
    with anthropic.Anthropic(base_url=address, api_key="secret", max_retries=0) as client:
        yield client


def test_a_message_whole_and_streamed_is_the_same(client) -> None:
    whole = client.messages.create(messages=LAMP, system="Answer shortly.", **ASKED)
    with client.messages.stream(messages=LAMP, system=[{"type": "text", "text": "Answer shortly."}], **ASKED) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == whole.content[0].text == last.content[0].text
    assert whole.stop_reason == last.stop_reason == "max_tokens"
    assert last.usage.output_tokens == whole.usage.output_tokens == 8
    read = [usage.input_tokens + usage.cache_read_input_tokens for usage in (last.usage, whole.usage)]
    assert read[0] == read[1] and last.usage.input_tokens == 1  # the others were computed for the first one


def test_a_stop_sequence_ends_the_message_and_is_named(client) -> None:
    whole = client.messages.create(messages=LAMP, **ASKED).content[0].text
    stop = whole[len(whole) // 2 :][:3]
    cut = client.messages.create(messages=LAMP, stop_sequences=[stop], **ASKED)
    assert cut.content[0].text == whole[: whole.index(stop)]
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)


def test_tokens_are_counted_as_a_message_counts_them(client) -> None:
    counted = client.messages.count_tokens(model="any", messages=LAMP, system="Answer shortly.").input_tokens
    used = client.messages.create(messages=LAMP, system="Answer shortly.", **ASKED).usage
    assert counted == used.input_tokens + used.cache_read_input_tokens


def test_a_document_s_text_is_read_as_the_message_s(client) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The lamp is green."}
    blocks = [{"type": "document", "source": source}, {"type": "text", "text": "Which lamp?"}]
    texts = [{"role": "user", "content": "The lamp is green.\nWhich lamp?"}]
    count = client.messages.count_tokens
    assert count(model="any", messages=[{"role": "user", "content": blocks}]) == count(model="any", messages=texts)


def test_an_answer_that_was_begun_is_gone_on_with(client) -> None:
    begun = [*LAMP, {"role": "assistant", "content": "Mara"}]
    count = client.messages.count_tokens
    asked = count(model="any", messages=LAMP).input_tokens
    assert asked < count(model="any", messages=begun).input_tokens <= asked + 3  # no turn was ended, and none begun


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": LAMP, "max_tokens": "many"}, "max_tokens"),
        ({"messages": LAMP, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"messages": LAMP, "tool_choice": {"type": "any"}}, "tool_choice"),
    ],
)
def test_errors_have_this_interface_s_shape(anthropic, client, body: dict, says: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.post("/v1/messages", body=body, cast_to=object)
    answer = caught.value.response.json()
    assert answer["type"] == "error" and answer["error"]["type"] == "invalid_request_error"
    assert says in answer["error"]["message"]


def test_a_wrong_key_and_a_wrong_path_too(anthropic, address: str) -> None:
    with anthropic.Anthropic(base_url=address, api_key="guess", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            client.messages.create(messages=LAMP, **ASKED)
    assert httpx.get(f"{address}/v1/messages").json()["type"] == "error"
