"""Calibration on tiny random models: shared prompts, prompts, checks, and the command from end to end."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import mlx.core as mx
import numpy as np
import pytest
from model_folder import VOCAB, write_model

from lazymlx.calibrate.calibration import Calibrator
from lazymlx.calibrate.fit import fit_maps
from lazymlx.calibrate.kinds import KINDS, Prompt, Writer
from lazymlx.calibrate.loss import LossMeter, Outcome
from lazymlx.calibrate.material import read_texts
from lazymlx.calibrate.plan import CalibrationPlan
from lazymlx.calibrate.shared import Continued, SharedPrompt
from lazymlx.cli.main import main
from lazymlx.config import LazyConfig
from lazymlx.errors import PromptError, RunError, UsageError
from lazymlx.loading import stored as schedules
from lazymlx.loading.load import load
from lazymlx.nn.maps import Maps
from lazymlx.schedule import Schedule


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tiny(folder: Path):
    return load(str(folder), LazyConfig.dense())


def words(text: str) -> int:
    return len(text.split())


# shared prompts


@pytest.mark.parametrize(
    "config",
    [
        LazyConfig(()),
        LazyConfig("3:0.3", min_tokens=0),
        LazyConfig("1:0.5,4:0.2", min_tokens=0, round_to=1, window=4, pool=1),
        LazyConfig.paper("2:0.4,3:0.2,5:0.1"),
    ],
)
def test_a_shared_prompt_goes_on_as_the_engine_would(tiny, config: LazyConfig) -> None:
    """A prompt read once for all, and the same prompt given to a cache of this configuration."""
    model, _ = tiny
    tokens = mx.array(np.random.default_rng(0).integers(6, VOCAB, size=(1, 150)))
    shared = SharedPrompt(model, tokens)
    last = [int(tokens[0, -1])]
    Continued(shared, LazyConfig("5:0.2", min_tokens=0), ()).force(last, [7], tail=3)  # another one went before
    whole = model.make_cache(config)
    whole[0].expect(150, tail=3)
    logits, answer, nats = model(tokens, cache=whole)[0, -1], [], []
    for _ in range(5):
        answer.append(int(logits.argmax()))
        nats.append(float(mx.logsumexp(logits) - logits.max()))
        logits = model(mx.array([answer[-1:]]), cache=whole)[0, -1]
    conversation = Continued(shared, config, ())
    forced = conversation.force(last, answer, tail=3)
    assert forced.said == tuple(answer) and conversation.cache[0].turn.kept == whole[0].turn.kept
    np.testing.assert_allclose(forced.nats, nats, atol=1e-3)


def test_a_shared_prompt_looks_ahead_as_the_engine_would(tiny) -> None:
    model, _ = tiny
    tokens = mx.array(np.random.default_rng(1).integers(6, VOCAB, size=(1, 150)))
    config = LazyConfig("1:0.5,4:0.2", min_tokens=0, round_to=1, lookahead=20)
    chunks = [np.random.default_rng(n).integers(6, VOCAB, size=100).tolist() for n in range(12)]
    model.look_with(fit_maps(model, chunks, [1, 4], fingerprint=""))
    try:
        whole = model.make_cache(config)
        whole[0].expect(150, tail=3)
        logits = model(tokens, cache=whole)[0, -1]
        conversation = Continued(SharedPrompt(model, tokens), config, ())
        begun = conversation.read([int(tokens[0, -1])], 3)
        assert conversation.cache[0].turn.kept == whole[0].turn.kept
        np.testing.assert_allclose(np.array(begun[0]), np.array(logits), atol=1e-3)
        apart = Continued(SharedPrompt(model, tokens), replace(config, lookahead=0), ()).read([int(tokens[0, -1])], 3)
        assert np.abs(np.array(apart) - np.array(begun)).max() > 1e-2, "looking ahead makes a difference"
    finally:
        model.look_with(None)


def test_nothing_is_lost_where_everything_is_kept(tiny) -> None:
    meter = LossMeter(*tiny)
    prompt = Writer(words, "x", ["prose"]).prompts(1, [200])[0]
    whole, little = meter(prompt, [LazyConfig("2:1.0", min_tokens=0), LazyConfig("1:0.03", min_tokens=0, round_to=1)])
    assert whole.same and whole.first and abs(whole.rise) < 1e-3
    assert not little.same and little.rise > 0.01
    assert little.kept[0] < whole.kept[0] == little.tokens
    assert meter(prompt, []) == [] and list(meter.dense) == [prompt]


# prompts


def writer(seed: str = "x", texts: Sequence[Sequence[str]] = ()) -> Writer:
    return Writer(words, seed, list(KINDS), texts)


def test_prompts_are_as_long_as_they_should_be_and_take_turns() -> None:
    prompts = writer().prompts(4, [300, 900])
    kinds = [prompt.kind for prompt in prompts]
    assert kinds == list(KINDS) * 4
    for prompt in prompts:
        assert 100 < words(prompt.text) <= 900
        assert "\n\nQuestion: " in prompt.text
    assert {(p.kind, words(p.text) > 400) for p in prompts} == {(k, long) for k in kinds for long in (False, True)}


def test_equal_seeds_make_equal_prompts_and_others_do_not() -> None:
    one, same, other = (writer(seed).prompts(2, [400]) for seed in ("a", "a", "b"))
    assert one == same
    # sums of the whole embedded document alone may be of the same paragraphs
    assert not {p.text for p in one} & {p.text for p in other if p.kind != "summary"}


def test_what_is_asked_stands_in_the_text() -> None:
    for prompt in writer().prompts(10, [400, 3000]):
        context, question = prompt.text.rsplit("\n\nQuestion: ", 1)
        if prompt.kind == "quote":
            assert context.count(question.removeprefix("Continue the text after: ")) == 1
        elif prompt.kind == "table":
            assert context.count(question.removesuffix("?").split()[-1]) == 1
        elif prompt.kind == "key-value":
            assert f'{question.split()[-1][:-1]}: "' in context
        elif prompt.kind == "code":
            assert context.count(f" {question.split('`')[1]}") >= 1


def test_prompts_ask_about_the_users_texts(tmp_path: Path) -> None:
    paragraphs = [" ".join(f"token{i}x{j}" for j in range(60)) for i in range(20)]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_text("\n\n".join(paragraphs))
    (tmp_path / "b.bin").write_bytes(b"\xff")
    texts = read_texts(tmp_path)
    assert texts == [paragraphs]
    about = {p.kind for p in writer(texts=texts).prompts(3, [300, 2000]) if re.search(r"token\d+x", p.text)}
    assert about == {"prose", "two-hop", "quote", "summary"}


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
    """Stands in for a meter: cuts before layer 4 lose a nat on one prompt of `rare`; `count` counts words."""

    def __init__(self, rare: int, kind: str = "prose", noise: float = 0.0):
        self.rare, self.kind, self.noise = rare, kind, noise
        self.encoder = SimpleNamespace(count=words)

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        code = crc32(prompt.text.encode())
        hard = code % self.rare == 0 and prompt.kind == self.kind
        rise = [float(hard and bool(c.cuts) and c.cuts[0].layer < 4) + self.noise * (code % 2) for c in configs]
        return [Outcome(r, r == 0, r == 0, 300, (100,) * len(c.cuts)) for r, c in zip(rise, configs, strict=True)]


class Looking(Fragile):
    """Looking ahead helps cuts before layer 4."""

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        outcomes = zip(configs, super().__call__(prompt, configs), strict=True)
        return [replace(each, rise=0.0) if config.lookahead else each for config, each in outcomes]


def calibrator(tiny, meter: Fragile, maps: Maps | None = None, **plan: object) -> Calibrator:
    chosen = CalibrationPlan(lengths=(300,), kinds=("prose", "key-value"), prompts=4, seed=5, **plan)
    made = Calibrator(*tiny, chosen, maps=maps)
    made.meter = meter  # type: ignore[assignment]
    return made


def test_a_schedule_that_fails_its_check_is_not_taken(tiny) -> None:
    """Four prompts do not show what thirty fresh ones do. Each schedule checked is slower than the one before."""
    made = calibrator(tiny, Fragile(rare=6), checks=30, max_loss=0.05)
    found = made.run()
    speeds = [made.speedup(Schedule.of(text).cuts) for text in found.refused] + [found.speedup]
    assert all(slower <= 0.95 * faster for faster, slower in pairwise(speeds))
    assert found.refused and found.config.cuts[0].layer == 4
    assert found.broke == "prose" and "prose broke first" in found.sentence(0.05)
    assert found.check.nats == 0 and len(found.check.outcomes) == 60


@pytest.mark.parametrize(("meter", "looks"), [(Looking(rare=1), True), (Fragile(rare=1), False)])
def test_a_schedule_looks_ahead_only_if_it_is_faster_so(tiny, meter: Fragile, looks: bool) -> None:
    """Looking costs operations: where it helps no answer, the same cuts without it are faster."""
    model, _ = tiny
    chunks = [np.random.default_rng(n).integers(6, VOCAB, size=100).tolist() for n in range(12)]
    try:
        found = calibrator(tiny, meter, fit_maps(model, chunks, [1, 2, 4, 5], fingerprint=""), checks=6).run()
    finally:
        model.look_with(None)
    assert (found.config.lookahead > 0) == looks == (found.maps is not None) == bool(found.blind.kinds)
    assert (found.config.cuts[0].layer < 4) == looks


def test_one_kind_alone_can_forbid_a_schedule(tiny) -> None:
    """Half of the prompts lose nothing; the mean over all would be within the limit."""
    found = calibrator(tiny, Fragile(rare=1, kind="key-value"), checks=6, max_loss=0.6).run()
    assert found.config.cuts[0].layer == 4 and found.broke == "key-value"


def test_what_the_checks_cannot_support_is_not_stored(tiny) -> None:
    """Every second prompt loses 0.12 nats: 0.06 in the mean, which six prompts a kind do not tell from 0.1."""
    with pytest.raises(RunError, match=r"6 of a kind are too few .* ask for about \d+ with --checks"):
        calibrator(tiny, Fragile(rare=10**12, noise=0.12), checks=6).run()
    assert calibrator(tiny, Fragile(rare=10**12, noise=0.12), checks=80).run().config.cuts


def test_when_nothing_may_be_left_out_the_model_stays_dense(tiny) -> None:
    found = calibrator(tiny, Fragile(rare=10**12, noise=10.0), checks=6).run()
    assert found.config.cuts == () and "cannot be cut" in found.sentence(0.1)
    assert found.record()["schedule"] == "dense" and found.speedup == 1.0


def test_a_target_is_reached_whatever_it_loses(tiny) -> None:
    found = calibrator(tiny, Fragile(rare=1), checks=6, target=2.5).run()
    assert found.speedup >= 2.5 and len(found.check.outcomes) == 12 and found.check.mean("prose") == 1.0


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (64,)}, "lengths"),
        ({"max_loss": 0.0}, "max-loss"),
        ({"max_loss": 11.0}, "max-loss"),
        ({"kinds": ("prose", "verse")}, "kinds are prose, two-hop"),
        ({"checks": 5}, "checks: must be at least 6"),
        ({"max_loss": float("nan")}, "max-loss"),
        ({"target": 1.0}, "target-speedup"),
        ({"prompts": 0}, "prompts"),
        ({"lengths": (10_000,)}, "4096 positions"),
        ({"target": 100.0}, "at most"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tiny, plan: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Calibrator(*tiny, CalibrationPlan(**plan))


# the command


SMALL = ["--lengths", "280", "--prompts", "1", "--checks", "6", "--kinds", "prose"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "flat", num_hidden_layers=3)


def test_the_command_may_be_interrupted_and_stores_what_load_then_uses(
    flat: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls, measure = [], LossMeter.__call__

    def interrupted(self, prompt, configs):
        """And what does not look ahead loses too much."""
        calls.append(prompt)
        if len(calls) == 4:  # two were to tell the time, and one is kept
            raise KeyboardInterrupt
        outcomes = zip(configs, measure(self, prompt, configs), strict=True)
        return [outcome if config.lookahead else replace(outcome, rise=10.0) for config, outcome in outcomes]

    command = ["calibrate", "--model", str(flat), "--max-loss", "9", *SMALL]
    stored = tmp_path / "cache" / "lazymlx" / "schedules" / f"{flat.parent.name}--flat.json"
    monkeypatch.setattr(LossMeter, "__call__", interrupted)
    monkeypatch.setattr("lazymlx.calibrate.loss.ANSWER_TOKENS", 8)
    assert main(command) == 130
    err = capsys.readouterr().err
    assert "--resume" in err and "fitting maps to look ahead with, for the cuts at 1, 2, to " in err
    assert not stored.exists() and stored.with_suffix(".partial.maps.safetensors").exists()
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    out, err = capsys.readouterr()
    schedule, record = out.strip(), json.loads(stored.read_text())
    assert "fitting maps to" not in err, "they were kept"
    assert record["schedule"] == schedule and ":" in schedule and record["r2"]["1"][0][0] > 0.9
    assert "on fresh prompts" in err and "without looking ahead" in err and str(stored) in err
    maps = schedules.maps_beside(stored)
    assert {path.name for path in stored.parent.iterdir()} == {stored.name, maps.name}, "the journal is gone"
    model, _ = load(str(flat))
    assert str(model.lazy.schedule) == schedule and model.lazy.min_tokens == 280
    assert list(model.engine.maps.cuts) == [cut.layer for cut in model.lazy.cuts]
    assert capsys.readouterr().err.strip() == f"lazymlx: schedule {schedule}, as calibrated in {stored}"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--lengths", "10"], 2, "lengths"),
        (["--lengths", "many"], 2, "--lengths"),
        (["--max-loss", "20"], 2, "max-loss: expected"),
        (["--kinds", "verse"], 2, "kinds are prose, two-hop"),
        (["--adapter-path", "x"], 2, "needs --out"),
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
