"""Calibration on tiny random models: readings, prompts, checks, and the command from end to end."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import mlx.core as mx
import numpy as np
import pytest
from model_folder import write_model

from lazymlx.calibrate.calibration import Calibrator
from lazymlx.calibrate.measure import Meter, Outcome, Reading
from lazymlx.calibrate.plan import Plan
from lazymlx.calibrate.prompts import Prompt, Writer, read_texts
from lazymlx.cli.main import main
from lazymlx.config import LazyConfig, Schedule
from lazymlx.errors import PromptError, UsageError
from lazymlx.loading.load import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tiny(folder: Path):
    return load(str(folder), LazyConfig.dense())


def words(text: str) -> int:
    return len(text.split())


# readings


@pytest.mark.parametrize(
    "config",
    [
        LazyConfig(()),
        LazyConfig("3:0.3", min_tokens=0),
        LazyConfig("1:0.5,4:0.2", min_tokens=0, round_to=1, window=4, pool=1),
        LazyConfig.paper("2:0.4,3:0.2,5:0.1"),
    ],
)
def test_a_reading_goes_on_as_the_engine_would(tiny, config: LazyConfig) -> None:
    """A prompt read once for all, and the same prompt given to a cache of this configuration."""
    model, _ = tiny
    tokens = mx.array(np.random.default_rng(0).integers(6, 8000, size=(1, 150)))
    reading = Reading(model, tokens, tail=3)
    reading.start(LazyConfig("5:0.2", min_tokens=0))  # another one went before
    cache, logits = reading.start(config)
    whole = model.make_cache(config)
    whole[0].expect(150, tail=3)
    expected = model(tokens, cache=whole)[0, -1]
    for _ in range(5):
        assert mx.abs(logits - expected).max() < 1e-3
        assert cache.turn.kept == whole[0].turn.kept and cache.computed() == whole[0].computed()
        token = expected.argmax().reshape(1, 1)
        logits, expected = reading.follow(cache, token), model(token, cache=whole)[0, -1]


def test_nothing_differs_where_everything_is_kept(tiny) -> None:
    meter = Meter(*tiny)
    prompt = Writer(meter.count, "x").prompts(1, [300])[0]
    whole, little = meter(prompt, [LazyConfig("2:1.0", min_tokens=0), LazyConfig("1:0.03", min_tokens=0, round_to=1)])
    assert not whole.differs and whole.kl < 1e-5
    assert little.differs and little.kl > 1e-3
    assert little.kept[0] < whole.kept[0] == little.tokens
    assert meter(prompt, []) == [] and list(meter.dense) == [prompt]


# prompts


def test_prompts_are_as_long_as_they_should_be_and_take_turns() -> None:
    prompts = Writer(words, "x").prompts(30, [300, 900])
    for prompt in prompts:
        assert 100 < words(prompt.text) <= 900
        assert "\n\nQuestion: " in prompt.text
    kinds = [prompt.kind for prompt in prompts]
    assert all(kinds.count(kind) == 6 for kind in ("fact", "cloze", "quote", "key-value", "variables"))
    assert {(p.kind, words(p.text) > 400) for p in prompts} == {(k, long) for k in kinds for long in (False, True)}


def test_equal_seeds_make_equal_prompts_and_others_do_not() -> None:
    one, same, other = (Writer(words, seed).prompts(10, [400]) for seed in ("a", "a", "b"))
    assert one == same
    assert not {p.text for p in one} & {p.text for p in other}


def test_what_is_asked_stands_in_the_text() -> None:
    for prompt in Writer(words, "x").prompts(50, [400, 5000]):
        context, question = prompt.text.rsplit("\n\nQuestion: ", 1)
        if prompt.kind == "quote":
            assert context.count(question.removeprefix("Continue the text after: ")) == 1
        elif prompt.kind == "cloze":
            left, right = question.removeprefix("Fill in the blank: ").split(" ____ ")
            assert left in context and right in context
        elif prompt.kind == "variables":
            assert f"\n{question[6:-1]} = " in context
        elif prompt.kind == "key-value":
            assert f'{question.split()[-1][:-1]}: "' in context


def test_prompts_ask_about_the_users_texts(tmp_path: Path) -> None:
    paragraphs = [" ".join(f"word{i}x{j}" for j in range(60)) for i in range(20)]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_text("\n\n".join(paragraphs))
    (tmp_path / "b.bin").write_bytes(b"\xff")
    texts = read_texts(tmp_path)
    assert texts == [paragraphs]
    for prompt in Writer(words, "x", texts).prompts(12, [300, 2000]):
        assert prompt.kind in ("fact", "cloze", "quote") and "word" in prompt.text


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="expected a folder"):
        read_texts(tmp_path / "none")
    with pytest.raises(PromptError, match="no paragraph"):
        read_texts(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff" * 100)
    with pytest.raises(PromptError, match="UTF-8"):
        read_texts(tmp_path)


# the check


class Fragile:
    """Stands in for a meter: cuts before layer 4 fail on one prompt of `rare`; `count` counts words."""

    def __init__(self, rare: int):
        self.rare, self.count = rare, words

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        hard = crc32(prompt.text.encode()) % self.rare == 0
        return [Outcome(hard and bool(c.cuts) and c.cuts[0].layer < 4, 0.0, 300, (100,) * len(c.cuts)) for c in configs]


def calibrator(tiny, rare: int, **plan: object) -> Calibrator:
    made = Calibrator(*tiny, Plan(lengths=(300,), prompts=10, checks=60, seed=1, **plan))
    made.meter = Fragile(rare)  # type: ignore[assignment]
    return made


def test_a_schedule_that_fails_its_check_is_not_taken(tiny) -> None:
    """Ten prompts do not show what sixty fresh ones do. Each schedule that is checked is slower than the one before."""
    made = calibrator(tiny, rare=20, max_loss=0.0)
    found = made.run()
    speeds = [made.speedup(Schedule.of(text).cuts) for text in found.refused] + [found.speedup]
    assert all(slower <= 0.95 * faster for faster, slower in pairwise(speeds))
    assert found.refused and found.config.cuts[0].layer == 4
    assert found.check.failed == 0 and found.check.prompts == 60
    assert found.search.prompts == 10 + sum(loss.failed for loss in found.refused.values())


def test_when_no_check_passes_the_model_stays_dense(tiny) -> None:
    found = calibrator(tiny, rare=20, max_loss=0.0, rounds=1).run()
    assert found.config.cuts == () and found.refused
    assert "cannot be cut" in found.sentence(0.0)
    assert found.record()["schedule"] == "dense" and found.speedup == 1.0


def test_a_target_is_reached_whatever_it_loses(tiny) -> None:
    found = calibrator(tiny, rare=1, target=2.5).run()
    assert found.speedup >= 2.5 and found.check.failed == found.check.prompts == 60
    assert "60 of 60 answers differ" in found.sentence(0.01)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (64,)}, "lengths"),
        ({"max_loss": -0.1}, "max-loss"),
        ({"max_loss": 1.0}, "max-loss"),
        ({"max_loss": float("nan")}, "max-loss"),
        ({"target": 1.0}, "target-speedup"),
        ({"prompts": 0}, "prompts"),
        ({"lengths": (10_000,)}, "4096 positions"),
        ({"target": 100.0}, "at most"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tiny, plan: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Calibrator(*tiny, Plan(**plan))


# the command


SMALL = ["--lengths", "280", "--prompts", "4", "--checks", "4"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "flat", num_hidden_layers=3)


def test_the_command_stores_what_load_then_uses(
    flat: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["calibrate", "--model", str(flat), "--max-loss", "0.99", *SMALL]) == 0
    out, err = capsys.readouterr()
    schedule = out.strip()
    stored = tmp_path / "cache" / "lazymlx" / "schedules" / f"{flat.parent.name}--flat.json"
    record = json.loads(stored.read_text())
    assert record["schedule"] == schedule and ":" in schedule
    assert "on fresh prompts" in err and str(stored) in err
    assert [path.name for path in stored.parent.iterdir()] == [stored.name], "the journal is gone"
    model, _ = load(str(flat))
    assert str(model.lazy.schedule) == schedule and model.lazy.min_tokens == 280
    assert capsys.readouterr().err.strip() == f"lazymlx: schedule {schedule}, as calibrated in {stored}"


def test_an_interrupted_command_goes_on(flat: Path, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, compare = [], Meter._compare

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return compare(self, *args)

    arguments = ["calibrate", "--model", str(flat), "--out", str(tmp_path / "out.json"), "--max-loss", "0.99", *SMALL]
    monkeypatch.setattr(Meter, "_compare", interrupted)
    assert main(arguments) == 130
    assert "--resume" in capsys.readouterr().err and not (tmp_path / "out.json").exists()
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert (tmp_path / "out.json").is_file() and not (tmp_path / "out.partial.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--lengths", "10"], 2, "lengths"),
        (["--lengths", "many"], 2, "--lengths"),
        (["--max-loss", "2"], 2, "max-loss: expected"),
        (["--target-speedup", "1"], 2, "target-speedup: expected more than 1"),
        (["--texts", "/nowhere"], 2, "expected a folder"),
        (["--model", "/nowhere"], 2, "/nowhere"),
        (["--out", "/proc/nothing/here.json"], 2, "cannot be written"),
        (["--resume", "--prompts", "0"], 2, "prompts"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, message: str, capsys) -> None:
    assert main(["calibrate", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_help_is_quick_to_ask_for() -> None:
    """It loads neither MLX nor a model."""
    code = "import sys; from lazymlx.cli.main import main\ntry: main(['calibrate', '-h'])\nexcept SystemExit: pass\n"
    check = "assert not {'mlx', 'mlx_lm', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code + check], check=True, capture_output=True)
