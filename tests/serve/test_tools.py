"""Tool calls: found in the text of an answer, and handed to the clients' own types."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from scripted import write_scripted_model

from lazymlx.serve.tool_calls import ToolCalls

SAID = ("Let me look. ", "<tool_call>", '{"name": "look_up", ', '"arguments": {"place": "pier"}}', "</tool_call>")
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}}
FUNCTION = {"name": "look_up", "description": "Looks a place up.", "parameters": SCHEMA}
ASKED = {"model": "any", "max_tokens": 20, "extra_body": {"temperature": 0}}
LAMP = {"role": "user", "content": "Who keeps the lamp?"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    from serving import Served

    with Served(write_scripted_model(tmp_path_factory.mktemp("scripted"), SAID)) as served:
        yield served.address


def test_openai_s_client_gets_a_call_whole_and_streamed(openai, address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
        tools = [{"type": "function", "function": FUNCTION}]
        whole = client.chat.completions.create(messages=[LAMP], tools=tools, **ASKED).choices[0]
        [call] = whole.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("look_up", '{"place": "pier"}')
        assert whole.message.content == "Let me look. " and whole.finish_reason == "tool_calls"
        with client.chat.completions.stream(messages=[LAMP], tools=tools, **ASKED) as stream:
            streamed = stream.get_final_completion().choices[0]
        assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
        assert streamed.message.content == whole.message.content and streamed.finish_reason == "tool_calls"
        said = [LAMP, whole.message.model_dump(exclude_none=True)]
        result = {"role": "tool", "tool_call_id": call.id, "content": "Mara."}
        again = client.chat.completions.create(messages=[*said, result], tools=tools, **ASKED)
        assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_anthropic_s_client_gets_a_call_whole_and_streamed(anthropic, address: str) -> None:
    with anthropic.Anthropic(base_url=address, api_key="secret", max_retries=0) as client:
        tools = [{"name": "look_up", "description": "Looks a place up.", "input_schema": SCHEMA}]
        whole = client.messages.create(messages=[LAMP], tools=tools, **ASKED)
        text, call = whole.content
        assert (text.text, call.name, call.input) == ("Let me look. ", "look_up", {"place": "pier"})
        assert whole.stop_reason == "tool_use"
        with client.messages.stream(messages=[LAMP], tools=tools, **ASKED) as stream:
            streamed = stream.get_final_message()
        assert [block.type for block in streamed.content] == ["text", "tool_use"]
        assert streamed.content[1].input == call.input and streamed.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Mara."}
        said = [LAMP, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
        assert client.messages.create(messages=said, tools=tools, **ASKED).usage.cache_read_input_tokens > 0


def test_without_tools_the_same_text_is_text(openai, address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
        answer = client.chat.completions.create(messages=[LAMP], **ASKED).choices[0]
    assert answer.message.content == "".join(SAID) and answer.finish_reason == "stop"


def heard(pieces: Sequence[str], parse: Callable, end: str = "</call>") -> tuple[str, list[str]]:
    calls, said, found = ToolCalls("<call>", end, parse, []), "", []
    for i, piece in enumerate(pieces):
        text, new = calls.add(piece, last=i == len(pieces) - 1)
        said, found = said + text, found + [call.name for call in new]
    return said, found


def named(text: str, tools: object) -> dict:
    if not text.isalpha():
        raise ValueError
    return {"name": text, "arguments": {}}


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        ("a<call>b</call>c<call>d</call>", "ac", ["b", "d"]),
        ("no call, but < and <cal", "no call, but < and <cal", []),
        ("a<call>2 + 2</call>c", "a<call>2 + 2</call>c", []),  # nothing that the parser takes
        ("a<call>b", "a", ["b"]),  # it ended before its mark
        ("a<call>2 +", "a<call>2 +", []),
    ],
)
def test_calls_are_found_however_the_text_comes(size: int, text: str, said: str, found: list[str]) -> None:
    assert heard([text[i : i + size] for i in range(0, len(text), size)], named) == (said, found)


def test_a_call_without_an_end_goes_on_to_the_answer_s() -> None:
    assert heard(["a<call>", "b", "c"], named, end="") == ("a", ["bc"])


def test_one_text_may_hold_several_calls(tmp_path: Path) -> None:
    assert heard(["<call>bc</call>"], lambda text, _: [named(letter, _) for letter in text])[1] == ["b", "c"]
