"""`lazymlx bench`: the speed of lazymlx beside stock mlx-lm, on this machine, on the same weights."""

import argparse
import json
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench import plan as plans
from ..bench.plan import BenchPlan
from ..config import LazyConfig
from ..errors import UsageError
from ..files import check_folder, write_json
from .party import speaks
from .terminal import say
from .values import lengths, number_or_all, path, words

if TYPE_CHECKING:
    from ..bench.measure import Bench
    from ..bench.models import Pair

QUICK: dict[str, Any] = {
    "lengths": (1024, 2048),
    "schedules": (plans.OWN,),
    "repeats": 3,
    "tokens": 8,
    "what": ("ttft", "decode", "memory"),
    "budget_s": 45.0,
}
DEFAULT = BenchPlan()

FIELDS = tuple(field.name for field in fields(BenchPlan))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags; what is not given is `BenchPlan`'s default."""
    model = parser.add_argument_group("model (default: the embedded one)")
    model.add_argument("--model", metavar="PATH", help="a model's folder or Hub name")
    model.add_argument("--shape", metavar="NAME", help="random weights of a well-known model's shape, see --shapes")
    model.add_argument("--bits", type=int, metavar="N", help="quantise the random weights")
    model.add_argument("--shapes", action="store_true", help="list the named shapes, and end")
    parser.add_argument(
        "--mac", action="store_true", help="what is unknown of Macs, in ten minutes, as a block to paste into an issue"
    )
    _add_plan_flags(parser.add_argument_group("measurements", argument_default=argparse.SUPPRESS))
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        default=Path("out"),
        help="for the JSON and the plot (default: %(default)s)",
    )
    out.add_argument("--no-plot", action="store_true", help="no plot (it needs matplotlib)")
    out.add_argument("--commit", metavar="HASH", help="of the sources, where git is not there to tell")
    out.add_argument(
        "--growth", type=path, metavar="RUN.json", help="say how the costs of a stored run grow, plot it, and end"
    )


def _add_plan_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--quick", action="store_true", default=False, help="a first look, in less than a minute")
    add(
        "--lengths",
        type=lengths,
        metavar="N,N,...",
        help="prompt lengths, 4k is 4096 (default: 1k to 16k; on a CPU to 4k)",
    )
    add(
        "--schedules",
        type=plans.schedules,
        metavar="NAME,...",
        help="presets, cuts such as 8:.6,12:.4, or auto: the model's own (default: early,steep)",
    )
    parts = f"some of {', '.join(plans.WHAT)} (default: all)"
    add("--only", dest="what", type=words, metavar="WHAT,...", help=parts)
    add("--repeats", type=int, metavar="N", help=f"timed runs of each kind (default: {DEFAULT.repeats})")
    add("--tokens", type=int, metavar="N", help=f"tokens generated a run (default: {DEFAULT.tokens})")
    add("--budget-s", type=float, metavar="S", help="stop in time, and report what is done (default: no limit)")
    add(
        "--steps",
        dest="stock_steps",
        type=steps,
        metavar="N,...",
        help="prefill step sizes of stock, the better counts (default: 2048,whole)",
    )
    add(
        "--own-step",
        dest="step",
        type=step,
        metavar="N",
        help="prefill step size of lazymlx, or whole (default: 2048)",
    )
    add(
        "--revive",
        type=number_or_all,
        default=DEFAULT.lazy.revive,
        metavar="N",
        help="tokens revived a step, or all",
    )
    add(
        "--look",
        dest="filled",
        type=words,
        metavar="HOW,...",
        help="run each schedule looking ahead too, over random maps: kept, seen or choosing (--filled of generate)",
    )
    add("--min-tokens", type=int, default=DEFAULT.lazy.min_tokens, metavar="N", help="prune from this length on")


def steps(text: str) -> tuple[int | None, ...]:
    """Step sizes out of "2048,whole"."""
    return tuple(step(word) for word in words(text))


def step(text: str) -> int | None:
    """A step size out of "2048" or "whole"."""
    try:
        return None if text == "whole" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number or 'whole', got {text!r}") from None


def run(args: argparse.Namespace) -> int:
    """Measure, show, store. Returns the exit code."""
    if args.shapes:
        from ..bench.shapes import SHAPES

        print("\n".join(SHAPES))
        return 0
    if args.growth:
        return _growth(args.growth)
    if args.mac:
        return _mac(args)
    plan = read_plan(args)
    if speaks(args):
        check_folder(args.out, "--out")
    from .. import demo
    from ..bench.fresh import first_answer_s
    from ..bench.measure import Bench
    from ..bench.models import check_named, make_pair, random_maps
    from ..bench.results import document, file_name
    from ..machine import advice, machine
    from ..ranks.group import ALONE

    check_named(args.model, args.shape, args.bits)
    say("preparing the weights")
    pair = make_pair(args.model, args.shape, args.bits, args.ranks or ALONE)
    plan = fitted(plan, pair, chosen="lengths" in args, quick=args.quick)
    if plan.filled:
        schedules = [pair.ours.resolve(LazyConfig(name)) for name in plan.schedules]
        pair.ours.look_with(random_maps(pair.ours, sorted({cut.layer for lazy in schedules for cut in lazy.cuts})))
    bench = Bench(pair, plan)
    on = machine() | ({"commit": args.commit} if args.commit else {})
    if slow := advice():
        say(slow)
    if args.shape is None and "ttft" in plan.what and args.ranks is None:
        bench.first_answer_s = first_answer_s(args.model or str(demo.MODEL))
        say(f"a fresh process answers in {bench.first_answer_s:.1f} s")
    to = args.out / file_name(document(bench, on))
    code = _measure(bench, on, to if speaks(args) else None)
    if speaks(args):
        _show(document(bench, on), to, plot=not args.no_plot)
    return code


def _mac(args: argparse.Namespace) -> int:
    """Measure what is not known of Macs, and print it."""
    if args.ranks is not None:
        raise UsageError("--mac: one process does it; start it without a launcher")
    from ..bench.fresh import first_answer_s
    from ..bench.mac import QUICK as SOME
    from ..bench.mac import SMALL, Scale, block, measured
    from ..bench.models import check_named, make_pair
    from ..costs.metal import chip_of
    from ..machine import machine, on_cpu

    check_named(args.model, args.shape, args.bits)
    scale = SMALL if on_cpu() else SOME if args.quick else Scale()
    shape, bits = args.shape, args.bits
    if args.model is None and shape is None:
        shape, bits = ("demo-12x384", None) if on_cpu() else ("llama-3-8b", 4)
    say("preparing the weights")
    pair, on, figures = make_pair(args.model, shape, bits), machine(), []
    fresh = None if args.model is None else partial(first_answer_s, args.model)
    for figure in measured(pair, chip_of(on["chip"]), scale, fresh):
        say(f"{figure.name}: {figure.measured:.3g} {figure.unit}")
        figures.append(figure)
    print(block(figures, on, pair.name))
    return 0


def read_plan(args: argparse.Namespace) -> BenchPlan:
    """The plan that the flags ask for."""
    given = {name: value for name, value in vars(args).items() if name in FIELDS}
    lazy = LazyConfig(revive=args.revive, min_tokens=args.min_tokens)
    for how in given.get("filled", ()):
        LazyConfig(filled=how)
    plan = BenchPlan(**({**QUICK, **given} if args.quick else given), lazy=lazy)
    for name in plan.schedules:
        if name != plans.OWN:
            LazyConfig(name)  # says what is wrong with it
    return plan


def fitted(plan: BenchPlan, pair: "Pair", chosen: bool, quick: bool = False) -> BenchPlan:
    """The plan for this model: its own schedule by its cuts, and unless they were `chosen`, lengths that suit it."""
    from ..machine import on_cpu

    own = tuple(pair.own_schedule if name == plans.OWN else name for name in plan.schedules)
    plan, positions = replace(plan, schedules=own), getattr(pair.args, "max_position_embeddings", None)
    if quick and not chosen and on_cpu():
        plan = replace(plan, lengths=plan.lengths[:1])
    if not chosen and not quick:
        suitable = plans.CPU_LENGTHS if on_cpu() else plans.LENGTHS
        return replace(plan, lengths=tuple(n for n in suitable if n <= (positions or n)))
    if positions is not None and max(plan.lengths) > positions:
        say(
            f"{max(plan.lengths)} tokens are more than the model's {positions} positions: only the speed means anything"
        )
    return plan


def _measure(bench: "Bench", on: dict[str, Any], path: Path | None) -> int:
    """Run it under a progress bar, storing what is done after each length, if anywhere. Returns the exit code."""
    from ..bench.results import document
    from .bar import Advance, under_bar

    def after_length(length: str) -> None:
        if path is not None:
            write_json(path, document(bench, on), "--out")
        if not sys.stderr.isatty():
            say(f"measured {length} tokens")

    def measure(advance: Advance) -> str | None:
        bench.after_run, bench.after_length = advance, after_length
        bench.run()
        return None if bench.complete else "stopped, the time was up (--budget-s gives more)"

    code, why = under_bar("first run", bench.runs, measure)
    if why:
        say(f"{why}; what follows was measured before")
    return code


def _show(content: dict[str, Any], path: Path, plot: bool) -> None:
    """Tables on stderr, files in the folder, one line of JSON on stdout."""
    from rich.console import Console

    from ..bench.figures import plot_speed
    from ..bench.results import curve_table, summary, table

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    for shown in (table(content), curve_table(content)):
        if shown is not None:
            console.print(shown)
    write_json(path, content, "--out")
    say(f"stored {path}")
    if plot and any(record["ttft_s"] for record in content["records"]):
        try:
            plot_speed(content, path.with_suffix(".png"))
            say(f"plotted {path.with_suffix('.png')}")
        except UsageError as error:  # no matplotlib: the figures are stored all the same
            say(str(error))
    print(json.dumps(summary(content, path)), flush=True)


def _growth(path: Path) -> int:
    from ..bench.figures import plot_growth
    from ..bench.growth import sentence
    from ..bench.results import read

    content = read(path)
    print(sentence(content))
    target = path.with_name(f"{path.stem}-growth.png")
    plot_growth(content, target)
    say(f"plotted {target}")
    return 0
