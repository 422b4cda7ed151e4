"""Bad input: one line on stderr that says what to do, an exit code, and nothing on stdout."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from model_folder import VOCAB, write_model

from lazymlx.cli.main import main
from lazymlx.errors import RunError, UsageError


class Refusal:
    """A command line that must be refused. Returns the one line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys = capsys

    def __call__(self, *arguments: str, code: int = 2, after_asking: bool = False) -> str:
        assert main(["generate", *arguments]) == code
        out, err = self.capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        if after_asking:  # the model was looked for, which is announced
            assert lines.pop(0).startswith("lazymlx: ")
        assert len(lines) == 1, err
        assert lines[0].startswith("lazymlx: error: ")
        return lines[0]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_no_such_folder(refused: Refusal, name: str) -> None:
    assert f"no folder {name}" in refused("--model", name, after_asking=True)


def test_offline_with_a_hub_name_that_is_not_cached(refused: Refusal, tmp_path: Path) -> None:
    line = refused("--model", "nobody-there/no-such-model", after_asking=True)
    assert "not in the Hub's cache" in line and "HF_HUB_OFFLINE" in line


def test_a_file_is_no_model(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").touch()
    assert "expected a folder" in refused("--model", str(tmp_path / "weights.gguf"), after_asking=True)


def test_no_config(refused: Refusal, folder: Path) -> None:
    write_model(folder)
    (folder / "config.json").unlink()
    assert "has no config.json" in refused("--model", str(folder), after_asking=True)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_config_that_is_no_json_object(refused: Refusal, folder: Path, content: str) -> None:
    write_model(folder)
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert "config.json" in refused("--model", str(folder), after_asking=True)


def test_weights_as_npz(refused: Refusal, folder: Path) -> None:
    write_model(folder)
    (folder / "model.safetensors").rename(folder / "weights.00.npz")
    line = refused("--model", str(folder), after_asking=True)
    assert "mlx_lm.convert" in line and "safetensors" in line


def test_no_weights(refused: Refusal, folder: Path) -> None:
    write_model(folder)
    (folder / "model.safetensors").unlink()
    assert "no model*.safetensors" in refused("--model", str(folder), after_asking=True)


def test_weights_cut_short(refused: Refusal, folder: Path) -> None:
    write_model(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "its end is missing; is the download" in refused("--model", str(folder), after_asking=True)


def test_weights_that_are_a_link_to_nothing(refused: Refusal, folder: Path) -> None:
    (write_model(folder) / "model-2.safetensors").symlink_to("nowhere")
    assert "model-2.safetensors is empty, cut off, or a link" in refused("--model", str(folder), after_asking=True)


def test_weights_of_another_shape(refused: Refusal, folder: Path) -> None:
    line = refused("--model", with_config(folder, hidden_size=64), after_asking=True)
    assert "does not fit its configuration" in line and f"(expected ({VOCAB}, 64), got ({VOCAB}, 32))" in line


@pytest.mark.parametrize("content", [b"", b"\x10\x00"])
def test_weights_without_a_byte(refused: Refusal, folder: Path, content: bytes) -> None:
    write_model(folder)
    for path in folder.glob("model*.safetensors"):
        path.write_bytes(content)
    assert ".safetensors is empty, cut off" in refused("--model", str(folder), after_asking=True)


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_broken_tokenizer(refused: Refusal, folder: Path, content: str | None) -> None:
    write_model(folder)
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    assert "tokenizer" in refused("--model", str(folder), after_asking=True)


def with_config(folder: Path, **changes: Any) -> str:
    """The tiny model under another description of itself."""
    write_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def test_an_unsupported_type_lists_the_supported(refused: Refusal, folder: Path) -> None:
    line = refused("--model", with_config(folder, model_type="abacus"), after_asking=True)
    assert "'abacus'" in line and "llama" in line and "mistral" in line


def test_a_type_that_cannot_be_supported_says_why(refused: Refusal, folder: Path) -> None:
    line = refused("--model", with_config(folder, model_type="mamba"), after_asking=True)
    assert "'mamba' is not supported: some layers are state-space" in line


def test_a_cut_behind_layers_that_see_a_window_only(refused: Refusal, folder: Path) -> None:
    kinds = [*["sliding_attention"] * 3, *["full_attention"] * 3]
    name = with_config(folder, layer_types=kinds, sliding_window=64)
    assert "sees a window of tokens only" in refused("--model", name, "--schedule", "2:0.5", after_asking=True)


def test_an_adapter_that_is_not_there(refused: Refusal, tiny_model_folder: Path) -> None:
    line = refused("--model", str(tiny_model_folder), "--adapter-path", "/nowhere", after_asking=True)
    assert "/nowhere" in line


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-p", ""], "prompt: the prompt is empty"),
        (["-p", " \\n"], "prompt: the prompt is empty"),
        (["-p", "text", "-q", ""], "question: it is empty"),
        (["--prompt-file", "/nowhere.txt"], "/nowhere.txt cannot be read: No such file"),
        (["--prompt-file", "/"], "/ is a folder without documents"),
        (["--prompt-file", "a.txt", "-p", "text"], "leave out one of the two"),
        (["-q", "Who?"], "there is no document"),
        (["--chat-template-config", "{"], "must be a JSON object"),
        (["--chat-template-config", "[]"], "must be a JSON object"),
    ],
)
def test_prompts(refused: Refusal, tiny_model_folder: Path, arguments: list[str], what: str) -> None:
    assert what in refused("--model", str(tiny_model_folder), *arguments)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty; expected some text"), (b"one \xff two", "is not UTF-8 text (byte 4)")],
    ids=["empty", "latin"],
)
def test_files_and_stdin(
    refused: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str
) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    line = refused("--prompt-file", str(file))
    assert what in line and str(file) in line
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    line = refused("-p", "-")
    assert f"stdin {what}" in line and ("by --prompt-file -" in line) == bool(content)
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin is closed" in refused("-p", "-")


def test_a_template_that_refuses_the_messages(refused: Refusal, folder: Path) -> None:
    write_model(folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('No system, please.') }}")
    assert "No system, please." in refused("--model", str(folder), "--system-prompt", "x", after_asking=True)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"])
def test_a_template_that_fails(refused: Refusal, folder: Path, template: str) -> None:
    write_model(folder)
    (folder / "chat_template.jinja").write_text(template)
    said = refused("--model", str(folder), "-p", "hi", after_asking=True)
    assert "chat template: it failed: " in said and "Error" in said


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--schedule", "4:0.5,2:0.2"], "layers must rise"),
        (["--schedule", "0:0.5"], "behind at least one layer"),
        (["--schedule", "2:0.2,4:0.5"], "keeps must not rise"),
        (["--schedule", "2:0"], "must be above 0 and at most 1, got 0.0"),
        (["--schedule", "2:1.5"], "must be above 0 and at most 1, got 1.5"),
        (["--schedule", "2:nan"], "must be above 0 and at most 1, got nan"),
        (["--schedule", "2"], "expected 'layer:keep,...'"),
        (["--schedule", "steeper"], "expected 'layer:keep,...'"),
        (["--window", "0"], "window: must be a whole number of at least 1, got 0"),
        (["--window", "x"], "--window: invalid int value: 'x'"),
        (["--pool", "-3"], "pool: must be a whole number of at least 1"),
        (["--pool", "4"], "pool: must be odd"),
        (["--revive", "-1"], "revive: must be a whole number of at least 0"),
        (["--revive", "some"], "--revive: must be a whole number or 'all', got 'some'"),
        (["--sink", "-1"], "sink: "),
        (["--recent", "-1"], "recent: "),
        (["--min-tokens", "-1"], "min_tokens: "),
        (["--round-to", "0"], "round_to: "),
        (["--reduce", "median"], "invalid choice: 'median'"),
        (["--attend", "all"], "invalid choice: 'all'"),
        (["--lazy", "perhaps"], "invalid choice: 'perhaps'"),
        (["--lazy", "off", "--compare"], "leave out one of the two"),
        (["--max-tokens", "0"], "must be at least 1, or -1"),
        (["--max-tokens", "many"], "--max-tokens"),
        (["--temp", "-1"], "--temp: must be from 0 to 1000, got -1"),
        (["--temp", "nan"], "--temp: must be from 0 to 1000, got nan"),
        (["--top-p", "1.5"], "--top-p: must be from 0 to 1, got 1.5"),
        (["--min-p", "-0.5"], "--min-p: must be from 0 to 1"),
        (["--min-tokens-to-keep", "0"], "--min-tokens-to-keep: must be from 1 to 1073741824"),
        (["--top-k", "-1"], "--top-k: must be from 0 to 1073741824"),
        (["--xtc-probability", "2"], "--xtc-probability: must be from 0 to 1"),
        (["--xtc-threshold", "0.6"], "--xtc-threshold: must be from 0 to 0.5"),
        (["--prefill-step-size", "0"], "--prefill-step-size: must be from 1 to 1073741824"),
        (["--prefill-step-size", "2147483648"], "--prefill-step-size: must be from 1 to 1073741824"),
        (["--window", "2147483648"], "window: must be at most 1073741824"),
        (["--revive", "9223372036854775808"], "revive: must be at most 65536"),
        (["--temp", "inf"], "--temp: must be from 0 to 1000, got inf"),
        (["--seed", "-1"], "--seed: must be from 0 to"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag; see 'lazymlx generate --help'"),
        (["--prompt"], "--prompt/-p: expected one argument"),
        (["--prompt-cache-file", "a.safetensors"], "--prompt-cache-file: mlx-lm's files"),
        (["--image", "a.png", "b.png"], "--image: lazymlx reads text alone"),
        (["-qa"], "--quantize-activations: "),
        (["--stats-json", "/nowhere/stats.json"], "--stats-json: there is no folder /nowhere"),
        (["--stats-json", "/"], "/ is a folder"),
        (["--explain", "/nowhere/page.html"], "--explain: there is no folder /nowhere"),
        (["--explain", "x.html", "--stats-json", "./x.html"], "--stats-json: x.html is where --explain goes"),
        (["--explain", "/"], "--explain: / is no name for a page; expected one that ends with .html"),
        (["--stats-json", "a" * 5000], "cannot be written: File name too long"),
        (["--stats-json", ""], "argument --stats-json: expected a name, got an empty text"),
        (["--prompt", "a\udcff"], "--prompt/-p: must be UTF-8 text"),
        (["--question", "a\udcff"], "--question/-q: must be UTF-8 text"),
        (["--stats-json", "/proc/stats.json"], "/proc/stats.json cannot be written"),
    ],
    ids=" ".join,
)
def test_flags_that_are_refused_before_anything_is_loaded(refused: Refusal, arguments: list[str], what: str) -> None:
    assert what in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--kv-bits", "4"], "kv_bits: rows of 8 values cannot be packed in groups of 64; leave it out"),
        (["--max-kv-size", "100"], "--max-kv-size: "),
        (["--draft-model", "x"], "--draft-model: "),
        (["--schedule", "6:0.5"], "layer 6 is outside of the model, which has layers 0 to 5"),
        (["--top-k", str(VOCAB), "--temp", "1"], f"--top-k: must be below the vocabulary's {VOCAB} tokens"),
    ],
    ids=" ".join,
)
def test_flags_that_the_model_cannot_serve(
    refused: Refusal, tiny_model_folder: Path, arguments: list[str], what: str
) -> None:
    assert what in refused("--model", str(tiny_model_folder), *arguments, after_asking=True)


def test_companions_of_refused_flags_are_harmless(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--num-draft-tokens 3 --use-default-chat-template -m 1"
    assert main(["generate", "--model", str(tiny_model_folder), *flags.split()]) == 0


def test_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generally"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "invalid choice: 'generally'" in err and "generate" in err


# --- how errors are answered ----------------------------------------------------------------------


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(args):
        raise error

    monkeypatch.setattr("lazymlx.cli.generate.run", fail)


def test_a_failure_while_running_is_code_1(refused: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RunError("the disk\nis full"))
    assert refused(code=1) == "lazymlx: error: the disk is full"


def test_a_variable_brings_the_traceback_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, UsageError("a mistake"))
    monkeypatch.setenv("LAZYMLX_TRACEBACK", "1")
    assert main(["generate"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("\nlazymlx: error: a mistake\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["generate"])


def test_ctrl_c_outside_of_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["generate"]) == 130
    assert capsys.readouterr().err == "lazymlx: interrupted\n"


def test_nothing_that_the_user_had_is_replaced(refused: Refusal, tmp_path: Path) -> None:
    """Not even what was just read, for a slip of the finger."""
    (tmp_path / "notes.html").write_text("mine")
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    for flag, name in (("--explain", "notes.html"), ("--stats-json", "notes.html"), ("--stats-json", "notes.json")):
        said = refused("--prompt-file", str(tmp_path / "notes.html"), flag, str(tmp_path / name))
        assert f"{flag}: " in said and f"{name} is a file of another kind, which would be lost" in said


@pytest.mark.parametrize("name", ["tokenize", "messages", "add_generation_prompt"])
def test_what_a_chat_template_is_given_anyway(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "-p", "hi", "-m", "1", "--chat-template-config", f'{{"{name}": 1}}']) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"lazymlx: error: --chat-template-config: the chat template cannot be given {name}: ")
