"""Clients that people have: LangChain, the `llm` command, and our own example."""

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import write_scripted_model

SAID = ("Let me look. ", "<tool_call>", '{"name": "look_up", ', '"arguments": {"place": "pier"}}', "</tool_call>")
TEXT = "".join(SAID)
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve.py"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model that says SAID."""
    from serving import Served

    with Served(write_scripted_model(tmp_path_factory.mktemp("clients") / "scripted", SAID)) as served:
        yield served.address


@pytest.mark.filterwarnings("default")  # its own
def test_langchain(scripted: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(base_url=f"{scripted}/v1", api_key="secret", model="any", temperature=0, max_retries=0)
    whole = chat.invoke("Who keeps the lamp?")
    assert whole.content == TEXT and whole.usage_metadata["output_tokens"] == 6
    assert "".join(chunk.content for chunk in chat.stream("Who keeps the lamp?")) == TEXT

    def look_up(place: str) -> str:
        """Looks a place up."""
        return place

    [call] = chat.bind_tools([look_up]).invoke("Who keeps the lamp?").tool_calls
    assert (call["name"], call["args"]) == ("look_up", {"place": "pier"})


def test_the_llm_command(scripted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llm")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    model = f"- model_id: ours\n  model_name: any\n  api_base: {scripted}/v1\n  api_key_name: ours\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model, encoding="utf-8")
    command = [sys.executable, "-m", "llm", "-m", "ours", "--key", "secret", "--no-log", "Who keeps the lamp?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{TEXT}\n", done.stderr


def test_our_example(scripted: str, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("openai")
    main = runpy.run_path(str(EXAMPLE))["main"]
    main("The keeper lights the green lamp. " * 20, ["Which lamp?", "And then?"], f"{scripted}/v1", "secret")
    first, second = map(int, re.findall(r"(\d+) of them read before", capsys.readouterr().out))
    assert first < 10 < 100 < second
