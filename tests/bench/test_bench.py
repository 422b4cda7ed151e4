"""The benchmark measures what it says: ideals are the paper's arithmetic, both models are the same, budgets hold."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import mlx.core as mx
import pytest

from lazymlx.bench import measure
from lazymlx.bench import plan as plans
from lazymlx.bench.figures import plot_growth, plot_speed
from lazymlx.bench.growth import fit, fits, sentence
from lazymlx.bench.measure import Bench, Budget, BudgetSpent
from lazymlx.bench.models import Pair, make_pair, random_maps, random_pair
from lazymlx.bench.plan import BenchPlan
from lazymlx.bench.results import document, file_name, read, rows, summary
from lazymlx.bench.runs import timed
from lazymlx.bench.shapes import SHAPES, shape_args
from lazymlx.config import LazyConfig
from lazymlx.costs.flops import Sizes, cache_share, ideal_speedup, layer_flops
from lazymlx.errors import UsageError
from lazymlx.files import write_json
from lazymlx.machine import has_openblas
from lazymlx.schedule import Schedule

MACHINE = {"date": "2026-01-02T03:04:05+00:00", "chip": "Some Chip", "device": "metal", "cores": 8}
MACHINE |= {"mlx": "1", "mlx_lm": "2", "lazymlx": "3", "commit": "abc", "blas": None}


def of_four_layers(lazy: LazyConfig) -> LazyConfig:
    """As a model of four layers does."""
    return lazy.resolve(4)


LLAMA_2_7B = Sizes.of(shape_args("llama-2-7b"))
PROG = Schedule.of("8:.6,12:.4,16:.3,22:.2").cuts
AGGR = Schedule.of("8:.3,12:.2,16:.1,22:.05").cuts


@pytest.fixture(scope="module")
def pair() -> Pair:
    return random_pair("tiny-4x64")


@pytest.fixture(scope="module")
def plan() -> BenchPlan:
    lazy = LazyConfig(min_tokens=0, round_to=1, recent=4)
    return BenchPlan(
        (32, 48), ("1:0.5,2:0.25",), lazy, repeats=2, tokens=2, budgets=(0, 2, None), stock_steps=(16, None)
    )


@pytest.fixture(scope="module")
def stored(pair: Pair, plan: BenchPlan) -> dict:
    """What a whole, tiny run stores."""
    bench = Bench(pair, plan)
    bench.run()
    assert bench.complete
    return json.loads(json.dumps(document(bench, MACHINE)))


# ideals


@pytest.mark.parametrize(
    ("schedule", "length", "speedup"),
    [
        ("9:.70,19:.49,28:.343", 3376, 1.49),
        ("9:.75,19:.50,28:.25", 7500, 1.50),
        ("9:.5,19:.3,28:.1", 3376, 1.91),
        ("9:.3,19:.2,28:.1", 7500, 2.34),
        ("9:.2", 3376, 2.39),
        ("9:.2", 7500, 2.44),
        ("9:.2", 32768, 2.64),
        ("9:.1", 3376, 2.87),
        ("9:.000001", 32768, 3.56),
    ],
)
def test_ideal_speedup_of_llama_2_7b(schedule: str, length: int, speedup: float) -> None:
    assert ideal_speedup(LLAMA_2_7B, Schedule.of(schedule).cuts, length) == pytest.approx(speedup, abs=0.011)


@pytest.mark.parametrize(("length", "prog", "aggr"), [(4096, 2.07, 2.93), (8192, 2.12, 2.98), (16384, 2.19, 3.05)])
def test_ideal_speedup_of_the_presets(length: int, prog: float, aggr: float) -> None:
    assert Schedule.of("early", 32).cuts == PROG and Schedule.of("steep", 32).cuts == AGGR
    assert ideal_speedup(LLAMA_2_7B, PROG, length) == pytest.approx(prog, abs=0.006)
    assert ideal_speedup(LLAMA_2_7B, AGGR, length) == pytest.approx(aggr, abs=0.006)


def test_ideal_speedup_counts_the_tokens_that_were_kept() -> None:
    cuts, length = Schedule.of("8:.5").cuts, 1000
    assert ideal_speedup(LLAMA_2_7B, cuts, length, [500]) == ideal_speedup(LLAMA_2_7B, cuts, length)
    assert ideal_speedup(LLAMA_2_7B, cuts, length, [length]) == 1.0


@pytest.mark.parametrize(("shape", "share"), [("llama-2-7b", 0.51), ("llama-3-8b", 0.54)])
def test_cache_share(shape: str, share: float) -> None:
    assert cache_share(Sizes.of(shape_args(shape)), PROG, 4096) == pytest.approx(share, abs=0.006)


def test_a_window_bounds_what_a_layer_sees() -> None:
    rows, window = 10_000, 1_000
    by_hand = sum(min(at, window) for at in range(1, rows + 1))
    free, bound = (layer_flops(LLAMA_2_7B, rows, seen) for seen in (None, window))
    pairs = rows * (rows + 1) / 2
    assert free - bound == pytest.approx(4 * LLAMA_2_7B.H * LLAMA_2_7B.D_h * (pairs - by_hand), rel=1e-3)
    assert layer_flops(LLAMA_2_7B, rows, rows + 1) == free
    windowed = replace(LLAMA_2_7B, windows=(window,) * 32)
    assert ideal_speedup(windowed, PROG, 32_768) < ideal_speedup(LLAMA_2_7B, PROG, 32_768)


def test_a_feed_forward_without_a_gate_has_two_matrices() -> None:
    args = shape_args("llama-2-7b")
    args.model_type = "nemotron"
    D, D_ff = args.hidden_size, args.intermediate_size
    assert layer_flops(LLAMA_2_7B, 10) - layer_flops(Sizes.of(args), 10) == pytest.approx(2 * 10 * D * D_ff)


# the pair


def test_experts_are_not_counted() -> None:
    args = shape_args("tiny-4x64")
    args.num_local_experts = 8
    assert Sizes.of(args) is None


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_a_configuration(name: str) -> None:
    assert Sizes.of(shape_args(name)) is not None


@pytest.mark.parametrize("bits", [None, 4])
def test_both_models_hold_the_same_weights_and_say_the_same(bits: int | None) -> None:
    pair = random_pair("tiny-4x64", bits)
    tokens = pair.prompt(20)[None]
    ours, stock = pair.ours(tokens), pair.stock(tokens)
    assert mx.allclose(ours, stock, atol=1e-4), mx.abs(ours - stock).max()
    assert pair.describe["bits"] == bits
    assert pair.stock.model.layers[0].mlp.up_proj.weight is pair.ours.model.layers[0].mlp.up_proj.weight


def test_the_embedded_model_as_a_pair() -> None:
    pair = make_pair(None, None, None)
    tokens = pair.prompt(5000)
    assert tokens.shape == (5000,)
    assert Schedule.of(pair.own_schedule, len(pair.ours.layers)).cuts
    ours, stock = pair.ours(tokens[None, :30]), pair.stock(tokens[None, :30])
    assert mx.allclose(ours, stock, atol=1e-3), mx.abs(ours - stock).max()


# bad input


def test_an_unknown_shape_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        make_pair(None, "llama-9", None)
    assert all(name in str(error.value) for name in SHAPES)


@pytest.mark.parametrize("given", [("m", "tiny-4x64", None), (None, None, 4), (None, "tiny-4x64", 7)])
def test_models_that_contradict_each_other(given: tuple) -> None:
    with pytest.raises(UsageError):
        make_pair(*given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lengths": ()},
        {"lengths": (1,)},
        {"what": ("speed",)},
        {"what": ()},
        {"repeats": 0},
        {"tokens": 0},
        {"step": 0},
        {"stock_steps": ()},
        {"budget_s": 0.0},
    ],
)
def test_a_plan_that_makes_no_sense(wrong: dict) -> None:
    with pytest.raises(UsageError):
        BenchPlan(**wrong)


def test_a_schedule_outside_of_the_model_is_refused_before_anything_runs(pair: Pair) -> None:
    with pytest.raises(UsageError, match="outside of the model"):
        Bench(pair, BenchPlan(schedules=("8:.5",)))


# reading a plan


def test_schedules_are_read() -> None:
    assert plans.schedules("early,steep") == ("early", "steep")
    assert plans.schedules("early,8:.6,12:.4") == ("early", "8:.6,12:.4")
    assert plans.schedules("8:.5;8:.25,9:.1;steep") == ("8:.5", "8:.25,9:.1", "steep")


def test_stock_runs_once_where_its_step_sizes_do_the_same() -> None:
    plan = BenchPlan(schedules=(), stock_steps=(2048, None))
    assert [v.name for v in plan.variants(of_four_layers, 2048)] == ["stock", "dense"]
    assert [v.step for v in plan.variants(of_four_layers, 4096)] == [2048, None, 2048]


# measuring


def test_a_budget_refuses_what_would_end_too_late() -> None:
    budget = Budget(10.0, clock=count(0.0, 1.0).__next__)  # each look at the clock takes a second
    budget.reserve(9.0)
    with pytest.raises(BudgetSpent):
        budget.reserve(9.0)
    Budget(None).reserve(1e9)


def test_a_budget_that_is_spent_leaves_what_was_measured(pair: Pair, plan: BenchPlan) -> None:
    """Rounds are whole: after a stop, all variants of a length ran equally often."""
    done: list[str] = []  # a clock on which each run takes a second
    bench = Bench(pair, replace(plan, budget_s=7.5), done.append, clock=lambda: float(len(done)))
    bench.run()
    assert not bench.complete
    assert len(done) == 8
    assert [len(record.ttft_s) for record in bench.records] == [1] * 4
    assert rows(document(bench, MACHINE))


def test_minutes_that_kernels_compile_for_are_not_taken_for_the_time_of_a_run(
    pair: Pair, plan: BenchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh card compiles a prompt's kernels in the first run of a variant, and those of an answer in the second."""
    now, runs = 0.0, dict[str, int]()

    def ran(pair: Pair, variant: plans.BenchVariant, *_: object) -> tuple[float, None]:
        nonlocal now
        runs[variant.name] = runs.get(variant.name, 0) + 1
        now += 60.0 if runs[variant.name] < 3 else 1.0
        return 1.0, None

    for name, fake in (
        ("compiles", lambda: True),
        ("perf_counter", lambda: now),
        ("timed", ran),
        ("measured_memory", lambda *args: ran(*args)[0]),
    ):
        monkeypatch.setattr(measure, name, fake)
    once = replace(plan, lengths=(32,), schedules=(), stock_steps=(None,), budgets=(), what=("ttft", "decode"))
    bench = Bench(pair, replace(once, budget_s=2 * 121 + 2 * once.rounds), clock=lambda: now)
    bench.run()
    assert bench.complete and [len(record.ttft_s) for record in bench.records] == [once.rounds] * 2


def test_the_runs_that_were_announced_are_made(pair: Pair, plan: BenchPlan) -> None:
    seen: list[str] = []
    bench = Bench(pair, plan, after_run=seen.append)
    bench.run()
    assert len(seen) == bench.runs


def test_a_run_generates_what_is_timed(pair: Pair) -> None:
    variant = BenchPlan(schedules=("2:.5",), lazy=LazyConfig(min_tokens=0)).with_schedule("2:.5", of_four_layers)
    ttft, rate = timed(pair, variant, pair.prompt(40), 3)
    assert ttft > 0 and rate is not None and rate > 0
    assert timed(pair, variant, pair.prompt(40))[1] is None


def test_a_whole_run(stored: dict) -> None:
    records = stored["records"]
    assert [r["variant"] for r in records if r["length"] == 48] == ["stock", "stock", "dense", "1:0.5,2:0.25"]
    assert [len(r["ttft_s"]) for r in records] == [2] * 8
    assert [len(r["decode_tps"]) for r in records] == [2, 0, 2, 2] * 2
    lazy = next(r for r in records if r["ideal"] and r["length"] == 48)
    assert lazy["kept"] == [
        24 + 20,
        12 + 20,
    ]  # shares of 48, and on top a window of 16 (the recent 4 are in it) and a sink of 4
    assert lazy["ideal_kept"] < lazy["ideal"]
    assert lazy["aux_bytes"] > 0 and lazy["peak_bytes"] > 0
    assert [r["revive"] for r in stored["curve"]] == [0, 2, "all"]


def test_only_memory_needs_no_rounds(pair: Pair, plan: BenchPlan) -> None:
    bench = Bench(pair, replace(plan, what=("memory",)))
    bench.run()
    assert not any(r.ttft_s or r.decode_tps for r in bench.records)
    assert all(r.kv_bytes for r in bench.records)
    found = rows(document(bench, MACHINE))
    assert found[0]["cache_ratio"] == 1.0 and found[0]["speedup"] is None


def test_looking_ahead_is_measured_beside_the_same_schedule_without_it(pair: Pair, plan: BenchPlan) -> None:
    pair.ours.look_with(random_maps(pair.ours, (1, 2)))
    try:
        bench = Bench(pair, replace(plan, what=("ttft",), lengths=(200,), filled=("kept", "seen", "choosing")))
        bench.run()
    finally:
        pair.ours.look_with(None)
    blind, kept, seen, choosing = bench.records[-4:]
    assert [r.variant for r in bench.records[-4:]] == [
        "1:0.5,2:0.25",
        "1:0.5,2:0.25 looking, kept",
        "1:0.5,2:0.25 looking, seen",
        "1:0.5,2:0.25 looking, choosing",
    ]
    assert blind.ideal > choosing.ideal > seen.ideal == kept.ideal > 0
    assert kept.kv_bytes > seen.kv_bytes == choosing.kv_bytes
    assert [len(r.ttft_s) for r in bench.records[-4:]] == [2] * 4


# reports


def made_up(pair: Pair, ttft: dict[int, tuple[float, float, float]]) -> dict:
    """A stored run with these times of stock, dense and lazy."""
    bench = Bench(pair, BenchPlan(tuple(ttft), ("2:.5",)))
    content = document(bench, MACHINE)
    for length, times in ttft.items():
        for variant, seconds in zip(("stock", "dense", "2:.5"), times, strict=True):
            record = {"variant": variant, "length": length, "step": 2048, "schedule": None, "revive": None}
            record |= {"ttft_s": [seconds * 2, seconds, seconds / 2], "decode_tps": [], "kept": []}
            record |= {"peak_bytes": 100 * length, "kv_bytes": None, "aux_bytes": None}
            content["records"].append(record | {"ideal": 2.0 if variant == "2:.5" else None, "ideal_kept": None})
    return content


def test_ratios_are_of_medians_and_the_better_stock_counts(pair: Pair) -> None:
    content = made_up(pair, {2048: (1.2, 1.0, 0.8)})
    content["records"].insert(0, content["records"][0] | {"step": 16, "ttft_s": [9.0]})
    stock, dense, lazy = rows(content)
    assert stock["ttft"] == 1.2 and stock["step"] == 2048
    assert dense["speedup"] == pytest.approx(1.2)
    assert lazy["speedup"] == pytest.approx(1.5)
    assert lazy["over_dense"] == pytest.approx(1.25)
    assert lazy["of_ideal"] == pytest.approx(0.625)
    assert lazy["over_default"] == pytest.approx(9.0 / 0.8)


def test_a_stored_run_is_read_again_and_anything_else_is_refused(stored: dict, tmp_path: Path) -> None:
    path = tmp_path / "new" / file_name(stored)
    assert path.name == "speed-20260102-030405-tiny-4x64-some-chip.json"
    write_json(path, stored, "--out")
    assert read(path) == stored
    assert [f.name for f in path.parent.iterdir()] == [path.name]
    line = json.loads(json.dumps(summary(stored, path)))
    assert len(line["rows"]) == 6 and line["complete"]
    for text in ("{}", "[]", "no json"):
        path.write_text(text)
        with pytest.raises(UsageError):
            read(path)


def test_plots(stored: dict, tmp_path: Path) -> None:
    for draw in (plot_speed, plot_growth):
        draw(stored, tmp_path / "plot.png", "abc123")
        assert b"abc123" in (tmp_path / "plot.png").read_bytes()


def test_growth_finds_the_exponent() -> None:
    exponent, factor = fit([1000, 2000, 8000], [3e3, 12e3, 192e3])
    assert exponent == pytest.approx(2) and factor == pytest.approx(3e-3)


@pytest.mark.parametrize(
    "loaded, found",
    [
        ("/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblasp-r0.3.21.so", True),
        ("/usr/lib/libopenblas.so.0", True),
        ("/venv/lib/python3.11/site-packages/numpy.libs/libscipy_openblas64_-32a4b2a6.so", False),
        ("/venv/lib/python3.11/site-packages/numpy.libs/libopenblas64_p-r0-5007b62f.3.23.dev.so", False),
        ("/usr/lib/libblas.so.3", False),
    ],
)
def test_numpys_own_openblas_is_none_that_mlx_uses(loaded: str, found: bool) -> None:
    assert has_openblas(f"7fd98ee00000-7fd98f089000 r--p 00000000 fe:00 1467006 {loaded}\n") is found


def test_growth_in_words(pair: Pair) -> None:
    content = made_up(pair, {1024: (1.0, 1.0, 1.0), 4096: (16.0, 8.0, 4.0)})
    found = {(f.cost, f.variant): f.exponent for f in fits(content)}
    assert found["time to the first token", "stock"] == pytest.approx(2)
    assert "From 1,024 to 4,096 tokens" in sentence(content)
    assert "N^2.00 (stock), N^1.50 (dense), N^1.00 (2:.5)" in sentence(content)
    with pytest.raises(UsageError, match="at least two lengths"):
        sentence(made_up(pair, {1024: (1.0, 1.0, 1.0)}))
