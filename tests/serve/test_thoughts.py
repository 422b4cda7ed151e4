"""What a model thinks is told apart from what it answers, in every interface."""

from collections.abc import Iterator

import pytest
from scripted import write_scripted_model

from lazymlx.serve.thoughts import Thoughts

SAID = ("<think>", "Who was ", "it?", "</think>", "Mara.")
ASKED = {"model": "any", "max_tokens": 20, "messages": [{"role": "user", "content": "Who keeps the lamp?"}]}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from serving import Served

    with Served(write_scripted_model(tmp_path_factory.mktemp("thinking"), SAID)) as served:
        yield served.address


def test_openai_s_client(openai, address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
        message = client.chat.completions.create(**ASKED).choices[0].message
        assert (message.content, message.reasoning) == ("Mara.", "Who was it?")
        deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(stream=True, **ASKED)]
    assert "".join(getattr(delta, "reasoning", "") for delta in deltas) == message.reasoning
    assert "".join(delta.content or "" for delta in deltas) == message.content


def test_anthropic_s_client(anthropic, address: str) -> None:
    with anthropic.Anthropic(base_url=address, api_key="secret", max_retries=0) as client:
        whole = client.messages.create(**ASKED)
        assert [(block.type, block.thinking) for block in whole.content[:1]] == [("thinking", "Who was it?")]
        assert whole.content[1].text == "Mara."
        with client.messages.stream(**ASKED) as stream:
            streamed = stream.get_final_message()
        assert [block.type for block in streamed.content] == ["thinking", "text"]
        assert (streamed.content[0].thinking, streamed.content[1].text) == ("Who was it?", "Mara.")
        again = [*ASKED["messages"], {"role": "assistant", "content": whole.content}, *ASKED["messages"]]
        assert client.messages.create(**{**ASKED, "messages": again}).usage.cache_read_input_tokens > 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "inside", "thought", "said"),
    [
        ("<t>a</t>b", False, "a", "b"),
        ("a</t>b", True, "a", "b"),
        ("a<b and </ c", False, "", "a<b and </ c"),
        ("<t>a", False, "a", ""),
        ("x<t>a</t>b<t>c</t>d", False, "ac", "xbd"),
        ("b<t", False, "", "b<t"),
    ],
)
def test_marks_are_found_however_the_text_comes(size: int, text: str, inside: bool, thought: str, said: str) -> None:
    thoughts, parts = Thoughts("<t>", "</t>", inside), []
    for at in range(0, len(text), size):
        parts.append(thoughts.add(text[at : at + size], last=at + size >= len(text)))
    assert ("".join(part[0] for part in parts), "".join(part[1] for part in parts)) == (thought, said)
