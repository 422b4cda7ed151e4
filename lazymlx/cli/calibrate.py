"""`lazymlx calibrate`: fit the maps to look ahead with, find the schedule that a model bears, store both for `load`."""

import argparse
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..calibrate.material import read_texts
from ..calibrate.plan import CalibrationPlan
from ..errors import UsageError
from ..files import write_json
from ..loading import stored as schedules
from .options import add_model_flags, model_name
from .terminal import say, write
from .values import lengths, number, path, words

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from ..calibrate.calibration import Calibration
    from ..engine.model import Model
    from ..nn.maps import Maps
    from .bar import Steps

EXAMPLES = """\
examples:
  lazymlx calibrate --model PATH                          the fastest schedule that loses 0.1 nats a token at most
  lazymlx calibrate --model PATH --kinds prose,summary    for questions on prose and summaries alone
  lazymlx calibrate --model PATH --texts notes/           on your own texts
  lazymlx calibrate --model PATH --target-speedup 2       the least loss at half of the operations
"""
PLAN = CalibrationPlan()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx calibrate`; defaults are those of `CalibrationPlan`."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add_model_flags(parser)
    add(
        "--texts",
        type=path,
        metavar="DIR",
        help="a folder with texts of yours to ask about, and to fit maps to, instead of built-in ones",
    )
    add(
        "--lengths",
        type=lengths,
        default=PLAN.lengths,
        metavar="N,N,...",
        help="lengths of the prompts in tokens, 4k is 4096 (default: 1k,2k)",
    )
    add(
        "--max-loss",
        type=number(float, 0.0),
        default=PLAN.max_loss,
        metavar="X",
        help="nats a token that the dense model's answers may surprise the lazy one more, in every kind of prompt "
        "(default: %(default)s)",
    )
    add(
        "--target-speedup",
        type=number(float, 0.0),
        metavar="X",
        help="go for the least loss at this many times fewer operations, instead of for --max-loss",
    )
    add(
        "--kinds",
        type=words,
        default=PLAN.kinds,
        metavar="NAME,...",
        help=f"of prompts that must not be harmed: {', '.join(PLAN.kinds)} (default: all)",
    )
    add("--prompts", type=int, default=PLAN.prompts, metavar="N", help="a kind, for the search (default: %(default)s)")
    add(
        "--checks",
        type=int,
        default=PLAN.checks,
        metavar="N",
        help="fresh ones a kind, for the check (default: %(default)s)",
    )
    add("--seed", type=int, default=PLAN.seed, metavar="N", help="of the prompts (default: %(default)s)")
    add(
        "--out",
        type=path,
        metavar="PLACE",
        help="a folder, or a file that ends in .json, for the schedule and its maps; --schedule reads it (default: "
        "where load looks for them)",
    )
    add("--resume", action="store_true", help="go on with a calibration that was interrupted")


def run(args: argparse.Namespace) -> int:
    """Calibrate; whatever can be refused without loading the model is refused first."""
    plan = CalibrationPlan(
        lengths=args.lengths,
        max_loss=args.max_loss,
        target=args.target_speedup,
        kinds=args.kinds,
        prompts=args.prompts,
        checks=args.checks,
        texts=() if args.texts is None else read_texts(args.texts),
        seed=args.seed,
    )

    from ..calibrate.calibration import Calibrator  # MLX comes with it, which takes a second
    from ..calibrate.looking import sentence, trusted
    from ..calibrate.trials import Book, open_journal
    from ..config import LazyConfig
    from ..loading.hub import find
    from ..loading.load import load
    from .bar import Steps

    if args.adapter_path is not None and args.out is None:
        raise UsageError("--adapter-path: needs --out, since load looks for the schedule of the model without it")
    folder = find(model_name(args))
    out, flag = _place(args.out, folder)
    schedules.check_writable(out, flag)
    fingerprint = schedules.folder_fingerprint(folder, args.adapter_path)
    measured = {"model": fingerprint, "seed": plan.seed, "texts": _digest(plan), "lazymlx": __version__}
    journal = open_journal(out.with_suffix(".partial.jsonl"), measured, args.resume)
    model, tokenizer = load(
        str(folder), LazyConfig.dense(), adapter_path=args.adapter_path, trust_remote_code=args.trust_remote_code
    )
    fitted = schedules.maps_beside(out.with_suffix(".partial.json"))
    try:
        with Steps("prompts") as steps:
            maps = _maps(model, tokenizer, plan, fingerprint, fitted, args.resume, steps)
            steps.say(sentence(maps))
            usable = trusted(maps)
            if usable is None:
                steps.say("they explain nothing, so schedules are searched without looking ahead")
            book = Book(journal, measured)
            calibrator = Calibrator(model, tokenizer, plan, maps=usable, book=book, on_prompt=steps, say=steps.say)
            steps.say(
                f"calibrating {folder} on {', '.join(plan.kinds)}, prompts of {' and '.join(map(str, plan.lengths))} "
                f"tokens; this takes about {calibrator.minutes():.0f} minutes, by what a first prompt took; "
                "interrupted at any time, it goes on with --resume"
            )
            found = calibrator.run()
    except KeyboardInterrupt:
        if journal.rows or fitted.exists():
            say(f"what was done is kept in {journal.path} and beside it; go on with --resume")
        raise
    _store(found, maps, out, flag, {"model": str(folder), "fingerprint": fingerprint, "lazymlx": __version__}, plan)
    journal.finish()
    fitted.unlink(missing_ok=True)
    say(found.sentence(plan.max_loss))
    say(f"stored in {out}" + (", which load uses from now on" if args.out is None else f"; use it by --schedule {out}"))
    write(f"{found.config.schedule}\n")
    return 0


def _place(out: Path | None, folder: Path) -> tuple[Path, str]:
    """Where the schedule goes, and the flag that said so: a file, or one in a folder."""
    if out is None:
        return schedules.user_file(folder), "schedule"
    return (out if out.suffix == ".json" else out / schedules.BESIDE), "--out"


def _digest(plan: CalibrationPlan) -> str:
    return sha256(repr(plan.texts).encode()).hexdigest()[:16]


def _maps(
    model: "Model",
    tokenizer: "TokenizerWrapper",
    plan: CalibrationPlan,
    fingerprint: str,
    kept: Path,
    resume: bool,
    steps: "Steps",
) -> "Maps":
    """Fitted now, or before an interruption."""
    from ..calibrate.looking import Fitting
    from ..eval.encoding import Encoder
    from ..nn.maps import Maps

    if resume and kept.exists():
        return Maps.load(kept, model, fingerprint)
    fitting = Fitting(model, Encoder(tokenizer), plan)
    steps.say(
        f"fitting maps to look ahead with, for the cuts at {', '.join(map(str, fitting.cuts))}, to {fitting.tokens} "
        f"tokens of text; this takes about {fitting.minutes():.0f} minutes"
    )
    maps = fitting.run(fingerprint, lambda share: steps("fitting maps", "", round(100 * share), 100))
    kept.parent.mkdir(parents=True, exist_ok=True)
    maps.save(kept)
    return maps


def _store(
    found: "Calibration", maps: "Maps", out: Path, flag: str, about: dict[str, object], plan: CalibrationPlan
) -> None:
    """The maps first: a schedule that needs them is never without them."""
    from ..calibrate.looking import r2_record

    made = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lengths": plan.lengths,
        "max_loss": plan.max_loss,
        "unit": "nats a token",
        "kinds": plan.kinds,
        "r2": r2_record(maps),
    }
    beside = schedules.maps_beside(out)
    if found.maps is not None:
        found.maps.save(beside)
    write_json(out, {**found.record(), **about, **made}, flag)
    if found.maps is None:
        beside.unlink(missing_ok=True)
