"""`lazymlx generate` on a tiny random model: what goes where, and that it is right."""

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import mlx_lm.generate  # noqa: F401  the package's attribute of that name is a function
import pytest
from commands import LAZY, TEXT, interrupted_answer
from mlx_lm.utils import load_tokenizer

from lazymlx import demo
from lazymlx.cli.ctrl_c import CtrlC
from lazymlx.cli.main import main
from lazymlx.cli.prompt import LONG_ANSWER
from lazymlx.config import LazyConfig
from lazymlx.stats import LazyStats


class Run:
    """The command on the tiny model; `out`, `err` and `stats` are what it left."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], scratch: Path):
        self.folder, self.capsys, self.json = folder, capsys, scratch / "stats.json"

    def __call__(self, *arguments: str, code: int = 0) -> "Run":
        command = ["generate", "--model", str(self.folder), "--stats-json", str(self.json), "-m", "8", *arguments]
        assert main(command) == code
        self.out, self.err = self.capsys.readouterr()
        self.stats = json.loads(self.json.read_text(encoding="utf-8")) if self.json.exists() else {}
        return self


@pytest.fixture
def run(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(tiny_model_folder, capsys, tmp_path)


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def prompt_of(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The prompt that the model was given, as text."""
    seen = []

    def stop(model, tokenizer, tokens, *rest, **options):
        seen.append(tokenizer.decode(tokens))
        yield from ()

    with monkeypatch.context() as patch:
        patch.setattr("lazymlx.cli.answering.stream_generate", stop)
        run(*arguments)
    return seen[0]


# --- streams --------------------------------------------------------------------------------------


def test_stdout_is_the_answer_and_nothing_else(run: Run) -> None:
    run("-p", TEXT, *LAZY)
    assert run.out == run.stats["text"] + "\n"
    assert run.stats["generation_tokens"] == 8


def test_statistics_are_mlx_lms_lines_and_ours_below(run: Run) -> None:
    run("-p", TEXT, *LAZY)
    lines = run.err.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Prompt: "))
    number = r"\d+\.\d{3}"
    patterns = [
        rf"Prompt: {run.stats['prompt_tokens']} tokens, {number} tokens-per-sec",
        rf"Generation: 8 tokens, {number} tokens-per-sec",
        rf"Peak memory: {number} GB",
        rf"TTFT: {number} s",
        r"Kept: \d+/\d+ tokens \(\d+\.\d%\) from layer 2 on, \d+/\d+ tokens \(\d+\.\d%\) from layer 4 on",
        r"Computed: \d+ in layers 0-1, \d+ from layer 2 on, \d+ from layer 4 on "
        r"\(\d+\.\d% of the dense work\); \d+ revived( \(\d+\.\d%\))?",
        r"Cache: \d+\.\d MB of keys and values, \d+\.\d MB of tokens left behind",
    ]
    assert len(lines) == start + len(patterns)
    for line, pattern in zip(lines[start:], patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_it_says_first_what_it_does(run: Run) -> None:
    run("-p", TEXT, "-q", "Which lamp is lit first?")
    assert run.err.splitlines()[0] == f"lazymlx: asking {run.folder} about the prompt: Which lamp is lit first?"


@pytest.mark.parametrize("no", ["False", "F"])
def test_quiet_is_the_answer_alone(run: Run, no: str) -> None:
    run("-p", TEXT, *LAZY, "--verbose", no)
    assert run.out == run.stats["text"] + "\n"
    assert run.err == ""


def test_no_bar_where_stderr_is_no_terminal(run: Run) -> None:
    run("-p", TEXT)
    assert "\x1b" not in run.err and "\r" not in run.err


# --- what is computed -----------------------------------------------------------------------------


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """mlx-lm's samplers as they are: compiling one on a CPU takes a second or two."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def mlx_lm_main(run: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> list[str]:
    """What mlx_lm.generate prints: the answer and its statistics. Its seed is set again after loading, as ours is."""
    module = sys.modules["mlx_lm.generate"]
    load = module.load

    def load_and_seed(*arguments, **options):
        loaded = load(*arguments, **options)
        mx.random.seed(7)
        return loaded

    monkeypatch.setattr(module, "load", load_and_seed)
    monkeypatch.setattr(sys, "argv", ["generate", "--model", str(run.folder), "-m", "8", *flags])
    module.main()
    return run.capsys.readouterr().out.split("==========\n")[1:]


def test_dense_text_is_mlx_lms(run: Run, monkeypatch: pytest.MonkeyPatch, uncompiled: None) -> None:
    """mlx_lm.generate's own main, on the same command line; sampling included."""
    flags = ["-p", "one\\ntwo\\tthree", "--system-prompt", "short", "--temp", "0.8", "--top-p", "0.9", "--seed", "7"]
    flags += ["--top-k", "50", "--min-p", "0.01", "--xtc-probability", "0.5", "--xtc-threshold", "0.05"]
    flags += ["--prefill-response", "It is"]
    run(*flags, "--lazy", "off")
    text, statistics = mlx_lm_main(run, monkeypatch, flags)
    assert run.out == text
    assert statistics.startswith(f"Prompt: {run.stats['prompt_tokens']} tokens,")
    assert run.stats["lazy"]["mode"] == "dense"


def test_short_prompts_are_dense_unless_lazy_is_on(run: Run) -> None:
    flags = ["-p", TEXT, "--schedule", "2:0.2", "--recent", "2", "--round-to", "1"]
    run(*flags)
    assert run.stats["lazy"]["mode"] == "dense"
    assert "the dense path: fewer than the 1024 of --min-tokens" in run.err
    run(*flags, "--lazy", "on")
    assert run.stats["lazy"]["mode"] == "lazy"
    assert run.stats["lazy"]["computed_fraction"] < 1


def test_lazy_flags_reach_the_cache(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def stop(model, tokenizer, tokens, max_tokens, *, prompt_cache, prefill_step_size, **options):
        seen.append((prompt_cache[0].config, prefill_step_size))
        yield from ()

    monkeypatch.setattr("lazymlx.cli.answering.stream_generate", stop)
    flags = "--schedule 2:0.5 --window 3 --pool 7 --reduce max --sink 1 --recent 5 --attend selected --revive all"
    run(*flags.split(), "--min-tokens", "9", "--round-to", "8", "--prefill-step-size", "77")
    wanted = LazyConfig(
        "2:0.5",
        window=3,
        pool=7,
        reduce="max",
        sink=1,
        recent=5,
        attend="selected",
        revive=None,
        min_tokens=9,
        round_to=8,
    )
    assert seen == [(wanted.resolve(6), 77)]


def test_the_default_schedule_is_told_once_and_only_where_it_is_used(run: Run) -> None:
    told = "no schedule is stored for this model"
    flags = ["-p", TEXT, "--min-tokens", "16"]
    assert run(*flags).err.count(told) == 1
    assert "4:0.25, 1." in run.err and "lazymlx calibrate" in run.err and "--fast is 3:0.5,4:0.25, 1." in run.err
    assert told not in run(*flags, "--fast").err
    assert run.stats["lazy"]["schedule"] == "3:0.5,4:0.25"
    assert told not in run(*flags, "--schedule", "2:0.5").err
    assert told not in run(*flags, "--lazy", "off").err
    assert told not in run("-p", "short").err


def test_fast_goes_with_no_schedule(run: Run) -> None:
    assert run("-p", TEXT, "--fast", "--schedule", "2:0.5", code=2).err.count("--fast: it is the schedule bold") == 1


def test_a_stored_schedule_is_used(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    folder.mkdir()
    for file in run.folder.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "lazymlx.json").write_text('{"schedule": "3:0.4"}')
    run.folder = folder
    run("-p", TEXT, "--min-tokens", "16")
    assert run.stats["lazy"]["schedule"] == "3:0.4"
    assert "no schedule" not in run.err


# --- prompts --------------------------------------------------------------------------------------


def test_default_prompt_is_mlx_lms(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prompt_of(run, monkeypatch) == "<|bos|><|user|>\nhello<|assistant|>"


def test_typed_prompts_are_unescaped_and_others_are_not(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = ["--ignore-chat-template"]
    assert prompt_of(run, monkeypatch, "-p", "a\\nb\\tc", *raw) == "a\nb\tc"
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffä\\nb\r\nc".encode())
    assert prompt_of(run, monkeypatch, "--prompt-file", str(file), *raw) == "ä\\nb\nc"
    stdin(monkeypatch, "ä\\nb\r\nc".encode())
    assert prompt_of(run, monkeypatch, "-p", "-", *raw) == "ä\\nb\nc"


def test_a_question_follows_its_document(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"A book.")
    text = prompt_of(run, monkeypatch, "-p", "-", "-q", "Who?", "--system-prompt", "Be brief.")
    assert text == "<|bos|><|system|>\nBe brief.<|user|>\nA book.\n\nQuestion: Who?<|assistant|>"


def test_an_answer_can_be_begun(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = prompt_of(run, monkeypatch, "-p", "Who?", "--prefill-response", "It was")
    assert text == "<|bos|><|user|>\nWho?<|assistant|> It was"


def test_the_template_takes_more_arguments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.dumps({"chat_template": "{{ messages[0]['content'] }} {{ mood }}", "mood": "gladly"})
    assert prompt_of(run, monkeypatch, "-p", "Who?", "--chat-template-config", config) == "Who? gladly"


def test_extra_tokens_end_an_answer(run: Run) -> None:
    first = run("-p", TEXT, "-m", "1").stats["text"]
    tokenizer = load_tokenizer(run.folder)
    tokens = [
        str(i) for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).strip() == first
    ]  # the first space is trimmed
    run("-p", TEXT, "--extra-eos-token", *tokens)
    assert run.stats["finish_reason"] == "stop"
    assert run.out == "\n"
    assert "No text generated for this prompt" in run.err


def test_a_prompt_beyond_the_models_positions_is_warned_of(run: Run, tmp_path: Path) -> None:
    from model_folder import write_model

    run.folder = write_model(tmp_path / "short", max_position_embeddings=8)
    run("-p", TEXT)
    assert run.err.count("more than the model's 8 positions") == 1
    assert run.stats["generation_tokens"] == 8


# --- figures --------------------------------------------------------------------------------------


def test_json_holds_every_figure(run: Run) -> None:
    run("-p", TEXT, *LAZY)
    assert run.stats["lazy"].keys() == LazyStats.__dataclass_fields__.keys()
    mlx_lms = {"text", "finish_reason", "prompt_tokens", "prompt_tps", "generation_tokens", "generation_tps"}
    assert run.stats.keys() == mlx_lms | {"peak_memory", "model", "lazy", "decode_tps", "prompt_computed"}
    assert run.stats["decode_tps"] > 0 and run.stats["prompt_computed"] is None
    assert run.stats["lazy"]["prompt_tokens"] == run.stats["prompt_tokens"]
    assert run.stats["lazy"]["ttft_s"] > 0
    assert len(run.stats["lazy"]["kept"]) == 2
    assert not list(run.json.parent.glob(".*.tmp"))


def test_json_does_not_replace_what_is_no_file(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "target.json")
    run("-p", TEXT, "--stats-json", str(link))
    assert link.is_symlink() and json.loads((tmp_path / "target.json").read_text())["text"]
    run("-p", TEXT, "--stats-json", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_compare_shows_both_sides(run: Run) -> None:
    run("-p", TEXT, *LAZY, "--compare")
    lazy, dense = run.stats["lazy"], run.stats["dense"]["lazy"]
    assert run.out == run.stats["text"] + "\n"
    assert dense["mode"] == "dense" and dense["computed"] == [dense["context_tokens"]]
    assert lazy["computed_fraction"] < dense["computed_fraction"] == 1
    for row in ("Answer", "TTFT", "Tokens computed", "Work", "Generation", "Keys and values", "Peak memory"):
        assert re.search(rf"^ *{row}", run.err, re.MULTILINE), row
    assert "of the work" in run.err.splitlines()[-1]


def test_compare_is_against_the_same_weights(run: Run) -> None:
    dense = run("-p", TEXT, "--lazy", "off").stats["text"]
    assert run("-p", TEXT, *LAZY, "--compare").stats["dense"]["text"] == dense


def test_ctrl_c_before_the_first_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("lazymlx.cli.answering.stream_generate", interrupted)
    run("-p", TEXT, "--compare", code=130)
    assert run.err.endswith("tokens, interrupted before the first token of the answer\n")
    assert run.stats["finish_reason"] == "interrupted"
    assert run.stats["lazy"]["ttft_s"] is None and "dense" not in run.stats


def test_ctrl_c_is_heeded_between_two_tokens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals in the middle of writing: the text that was written is the text that is counted."""
    written = interrupted_answer(monkeypatch, after=3)
    run("-p", TEXT, code=130)
    assert run.stats["generation_tokens"] == 3
    assert run.stats["text"] == "".join(written[:3])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_interrupts_before_the_first_token_and_when_it_comes_twice() -> None:
    with CtrlC() as ctrl_c:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        ctrl_c.patient = True
        signal.raise_signal(signal.SIGINT)
        assert ctrl_c.wished
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_arguments_the_demo_answers_right(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded model on a part of the embedded document (for time's sake), lazily and densely."""
    question, document = demo.questions()[LONG_ANSWER], demo.document()
    at = document.index(question["answer"])
    monkeypatch.setattr(demo, "document", lambda: document[max(at - 3000, 0) : at + 2500])
    assert main(["generate", "-m", "32", "--stats-json", str(tmp_path / "stats.json")]) == 0
    out, err = capsys.readouterr()
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert out.startswith(question["answer"])
    assert question["question"] in err.splitlines()[0]
    assert stats["dense"]["text"].startswith(question["answer"])
    assert stats["generation_tokens"] > 20
    assert stats["lazy"]["schedule"] == json.loads((demo.MODEL / "lazymlx.json").read_text())["schedule"]
    assert stats["lazy"]["mode"] == "lazy" and stats["lazy"]["computed_fraction"] < 0.9
    assert "the same answer, its first token" in err.splitlines()[-1]
