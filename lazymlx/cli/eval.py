"""`lazymlx eval`: what leaving tokens behind costs in quality, beside the dense model and rival methods."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import LazyConfig
from ..demo import MODEL
from ..errors import ModelError, UsageError
from ..schedule import Schedule
from . import options, values
from .terminal import say
from .values import lengths, words

if TYPE_CHECKING:
    from ..engine.model import Model
    from ..eval.encoding import Encoder
    from ..eval.policies import Options
    from ..eval.run import Matrix
    from ..eval.samples import Sample
    from ..eval.store import Store

SAMPLES = 20

EXAMPLES = """\
examples:
  lazymlx eval --tasks facts,quote --policies dense,lazy,static --lengths 1024,4096 --n 50 --out out/demo
  lazymlx eval --model PATH --schedules 16:0.5 16:0.25 16:0.1 --draft-model SMALL --out out/sweep
  lazymlx eval --model PATH --data hotpotqa.jsonl nq-open-20.jsonl.gz --n 100 --out out/longbench
  lazymlx eval --model PATH --data prompts.txt --reference dense --policies dense,lazy --out out/mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx eval`."""
    parser.epilog = EXAMPLES
    models = parser.add_argument_group("model")
    options.add_model_flags(models)
    models.add_argument("--draft-model", metavar="PATH", help="a small model with the same tokenizer, for specprefill")
    _add_matrix_flags(parser.add_argument_group("what to ask, and whom"))
    options.add_lazy_flags(parser.add_argument_group("what to compute"))
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out",
        type=values.path,
        default=Path("out/eval"),
        metavar="FOLDER",
        help="for answers, results and plot (%(default)s)",
    )
    out.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder, also with more tasks, policies or prompts",
    )
    out.add_argument("--no-plot", action="store_true", help="no plot (it needs matplotlib)")
    out.add_argument("--commit", metavar="HASH", help="of the sources, where git is not there to tell")


def _add_matrix_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tasks", type=words, metavar="NAME,...", help="generated tasks (default: all; none if there is --data)")
    add("--policies", type=words, metavar="NAME,...", help="default: all, specprefill only with --draft-model")
    add("--lengths", type=lengths, default=(1024,), metavar="N,...", help="tokens of the prompts; 4k is 4096 (1024)")
    add("--n", type=values.number(int, 1), default=SAMPLES, metavar="N", help="samples a cell (default: %(default)s)")
    add("--seed", type=values.number(int, 0), default=0, metavar="N", help="of the samples (default: %(default)s)")
    add(
        "--data",
        nargs="+",
        type=values.path,
        default=[],
        metavar="FILE",
        help="LongBench, lost-in-the-middle, RULER: JSONL; with --reference dense any prompts",
    )
    add(
        "--reference",
        choices=("labels", "dense"),
        default="labels",
        help="what answers are held against: the right ones that a file holds, or the dense model's, for files of bare "
        "prompts: .txt with one a line, .jsonl with 'prompt' (default: %(default)s)",
    )
    add("--budget-s", type=values.number(float, 0), metavar="S", help="stop in time, and report what is done")
    add("--schedules", nargs="+", metavar="CUTS", help="several schedules, each a point (default: that of --schedule)")
    add("--layer", type=values.number(int, 1), metavar="N", help="where policies with one selection select (first cut)")
    add("--keeps", type=shares, metavar="X,...", help="what those keep, each a point (default: of the first cuts)")


def shares(text: str) -> list[float]:
    """A list of shares of a prompt."""
    found = [float(word) for word in words(text)]
    if not all(0 < share <= 1 for share in found):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return found


def run(args: argparse.Namespace) -> int:
    """Ask, show, store. What can be refused without a model is refused before one is loaded."""
    lazy = options.lazy_config(args)
    from ..eval import published, tasks
    from ..eval.encoding import Encoder
    from ..eval.run import Generated, Matrix, check_policies, policies_of
    from ..eval.store import Store, check_out
    from ..eval.unlabelled import read_prompts

    check_reference(args)
    names, policies = asked_tasks(args), asked_policies(args)
    tasks.check_tasks(names)
    tasks.check_lengths(args.lengths)
    check_policies(policies, draft=args.draft_model is not None)
    read = read_prompts if args.reference == "dense" else published.read
    samples = in_turn([read(path, args.n) for path in args.data])
    published.check_apart(samples)
    for text in args.schedules or []:
        LazyConfig(text)  # says what is wrong with it
    check_out(args.out, args.resume)

    model, tokenizer = _load(args, lazy)
    encoder = Encoder(tokenizer)
    _check_fit(args, model, encoder, samples)
    found = policies_of(policies, make_options(args, model, _draft(args, tokenizer)))
    store = Store(args.out, settings(args, model), args.resume)
    generated = Generated(names, args.lengths, args.n, args.seed, encoder)
    total = (len(samples) + len(generated)) * len(found)
    code, why = _ask(Matrix(model, encoder, found, store), chain(samples, generated), total, args.budget_s)
    if why:
        say(f"{why}; what is done is kept in {args.out}, --resume goes on")
    _show(args, store, model, complete=why is None)
    return code


def in_turn(files: "Sequence[Sequence[Sample]]") -> "list[Sample]":
    """The first sample of each file, then the second ones: a run that is cut short has something of every file."""
    return [sample for row in zip_longest(*files) for sample in row if sample is not None]


def check_reference(args: argparse.Namespace) -> None:
    """Refuse the dense model as a reference for what has right answers, or where there are no prompts."""
    if args.reference == "dense" and not args.data:
        raise UsageError("--reference dense: name files of prompts with --data")
    if args.reference == "dense" and args.tasks is not None:
        raise UsageError("--reference dense: generated tasks have right answers; leave --tasks out")


def asked_tasks(args: argparse.Namespace) -> Sequence[str]:
    """The generated tasks: those named, else all of them, or none if there is a file."""
    from ..eval.tasks import TASKS

    if args.tasks is not None:
        return args.tasks
    return [] if args.data else list(TASKS)


def asked_policies(args: argparse.Namespace) -> Sequence[str]:
    """The policies: those named, else all that can run."""
    from ..eval.policies import POLICIES

    if args.policies is not None:
        return args.policies
    return [name for name, kind in POLICIES.items() if args.draft_model or not kind.needs_draft]


def settings(args: argparse.Namespace, model: "Model") -> dict[str, Any]:
    """What all answers of a run have in common, the machine for their times; points are named with each answer."""
    from ..loading.hub import find
    from ..loading.stored import folder_fingerprint
    from ..machine import machine

    lazy, maps = model.lazy, model.engine.maps
    shared = {f.name: getattr(lazy, f.name) for f in fields(lazy) if f.name not in ("schedule", "scorer")}
    return {
        "model": MODEL.name if args.model is None else args.model,
        "weights": folder_fingerprint(find(options.model_name(args)), args.adapter_path),
        "looks_at": None if maps is None else sorted(maps.cuts),  # cuts that it has maps for
        "draft_model": Path(args.draft_model).name if args.draft_model else None,
        "draft_weights": folder_fingerprint(find(args.draft_model)) if args.draft_model else None,
        "seed": args.seed,
        "chip": machine()["chip"],
        "lazy": shared,
    }


def make_options(args: argparse.Namespace, model: "Model", draft: "Model | None") -> "Options":
    """What the policies are made from: schedules as asked for, and single cuts that match them where nothing was said.

    Raises:
        UsageError: policies that select once have nothing to go by.
        ConfigError: a schedule does not fit the model.
    """
    from ..eval.policies import Options

    layers = len(model.layers)
    schedules = tuple(Schedule.of(given, layers) for given in args.schedules or [model.resolve(model.lazy).schedule])
    first = [schedule.cuts[0] for schedule in schedules if schedule]
    if not first and not (args.layer and args.keeps):
        flag = "--schedules" if args.schedules else "--schedule"
        raise UsageError(f"{flag}: nothing is left behind; give one with a cut, or --layer and --keeps")
    layer = args.layer or first[0].layer
    if layer >= layers:
        raise UsageError(f"--layer: must be below the model's {layers} layers, got {layer}")
    keeps = tuple(args.keeps or dict.fromkeys(cut.keep for cut in first))
    return Options(model.lazy, schedules, layer, keeps, draft, args.seed)


def _load(args: argparse.Namespace, lazy: LazyConfig) -> tuple[Any, Any]:
    from ..loading.load import load

    return load(options.model_name(args), lazy, **options.loading(args))


def _draft(args: argparse.Namespace, tokenizer: Any) -> "Model | None":
    from ..loading.load import load

    if args.draft_model is None:
        return None
    try:
        draft, other = load(args.draft_model)
    except ModelError as error:
        raise ModelError(f"--draft-model: {error}") from None
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    if ours != theirs:
        raise UsageError(
            f"--draft-model: its tokenizer is another one (it shares {len(ours.items() & theirs.items())} of its "
            f"{len(theirs)} tokens with the model's {len(ours)}); use a draft model of the same family"
        )
    return draft


def _check_fit(args: argparse.Namespace, model: "Model", encoder: "Encoder", samples: "Sequence[Sample]") -> None:
    """Refuse what the model has no positions for, and say what will be shortened."""
    from ..eval.lengths import check_lengths_fit, check_samples_fit, shortened

    check_lengths_fit(args.lengths if asked_tasks(args) else [], model.max_positions)
    check_samples_fit(samples, encoder, model.max_positions)
    if count := shortened(samples, encoder, model.max_positions):
        say(
            f"note: {count} of {len(samples)} prompts are longer than the model's {model.max_positions} positions and "
            "lose their middle, as LongBench's own script has it"
        )


def _ask(matrix: "Matrix", samples: "Iterable[Sample]", total: int, seconds: float | None) -> tuple[int, str | None]:
    """Run the matrix under a progress bar. Returns the exit code, and why it ended early."""
    from .bar import Advance, under_bar

    def ask(advance: Advance) -> str | None:
        matrix.after_answer = lambda row: advance(f"{row['task']} {row['policy']}")
        return None if matrix.run(samples, seconds) else "the time was up"

    return under_bar("answers", total, ask)


def _show(args: argparse.Namespace, store: "Store", model: "Model", complete: bool) -> None:
    """Tables on stderr, files in the folder, one line of JSON on stdout."""
    from rich.console import Console

    from ..eval import report
    from ..machine import machine

    if not store.rows:
        return
    on = machine() | ({"commit": args.commit} if args.commit else {})
    content = report.document(store, on, describe(args, model), complete)
    path = store.write(report.RESULTS, content)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 180)
    for length in report.lengths(content):
        console.print(report.table(content, length))
    if content["left_out"]:
        say(
            f"note: {content['left_out']} answers are in no table, since not every policy has answered their prompts; "
            "--resume with the flags of all runs answers the rest"
        )
    say(f"stored {path} and every answer in {store.path}")
    if content["cells"] and not args.no_plot:
        _plot(content, path.with_suffix(".png"))
    print(json.dumps({"file": str(path), "complete": complete, "answers": len(store.rows)}), flush=True)


def _plot(content: dict[str, Any], path: Path) -> None:
    from ..eval.plot import plot

    try:
        plot(content, path)
        say(f"plotted {path}")
    except UsageError as error:  # no matplotlib: the numbers are stored all the same
        say(str(error))


def describe(args: argparse.Namespace, model: "Model") -> dict[str, Any]:
    """The model, ready for JSON."""
    return {
        "name": Path(args.model).name if args.model else "the embedded model",
        "layers": len(model.layers),
        "kind": model.model_type,
        "draft": Path(args.draft_model).name if args.draft_model else None,
    }
