"""`lazymlx calibrate`: find the schedule that a model bears, and store it for `load`."""

import argparse
from datetime import UTC, datetime

from .. import __version__
from ..calibrate.plan import Plan
from ..calibrate.prompts import read_texts
from ..files import write_json
from ..loading import stored as schedules
from .options import model_name
from .terminal import say, write
from .values import lengths, number, path

EXAMPLES = """\
examples:
  lazymlx calibrate --model PATH                              the fastest schedule that changes 1% of the answers
  lazymlx calibrate --model PATH --texts notes/ --max-loss 0  on your own texts, and no answer may change
  lazymlx calibrate --model PATH --target-speedup 2           the least loss at half of the operations
"""
PLAN = Plan()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx calibrate`; defaults are those of `Plan`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--model", metavar="PATH", help="a model's folder or Hub name (default: the embedded model)")
    add("--texts", type=path, metavar="DIR", help="a folder with texts of yours to ask about, instead of built-in ones")
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
        help="share of the answers that may differ from the dense model's (default: %(default)s)",
    )
    add(
        "--target-speedup",
        type=number(float, 0.0),
        metavar="X",
        help="go for the least loss at this many times fewer operations, instead of for --max-loss",
    )
    add("--prompts", type=int, default=PLAN.prompts, metavar="N", help="for the search (default: %(default)s)")
    add("--checks", type=int, default=PLAN.checks, metavar="N", help="fresh ones for the check (default: %(default)s)")
    add("--seed", type=int, default=PLAN.seed, metavar="N", help="of the prompts (default: %(default)s)")
    add("--out", type=path, metavar="FILE", help="where to store the schedule (default: where load looks for it)")
    add("--resume", action="store_true", help="go on with a calibration that was interrupted")


def run(args: argparse.Namespace) -> int:
    """Calibrate; whatever can be refused without loading the model is refused first."""
    plan = Plan(
        lengths=args.lengths,
        max_loss=args.max_loss,
        target=args.target_speedup,
        prompts=args.prompts,
        checks=args.checks,
        texts=() if args.texts is None else read_texts(args.texts),
        seed=args.seed,
    )

    from ..calibrate.calibration import Calibrator  # MLX comes with it, which takes a second
    from ..calibrate.trials import Journal
    from ..config import LazyConfig
    from ..loading.hub import find
    from ..loading.load import load
    from .bar import Steps

    folder = find(model_name(args))
    out, flag = (schedules.user_file(folder), "schedule") if args.out is None else (args.out, "--out")
    schedules.check_writable(out, flag)
    model, tokenizer = load(str(folder), LazyConfig.dense())
    fingerprint = schedules.fingerprint(folder)
    journal = Journal(out.with_suffix(".partial.jsonl"), {"model": fingerprint, "lazymlx": __version__}, args.resume)
    try:
        with Steps("prompts") as steps:
            calibrator = Calibrator(model, tokenizer, plan, journal=journal, on_prompt=steps, say=steps.say)
            steps.say(f"calibrating {folder} on prompts of {' and '.join(map(str, plan.lengths))} tokens")
            found = calibrator.run()
    except KeyboardInterrupt:
        if journal.outcomes:
            say(f"what was measured is kept in {journal.path}; go on with --resume")
        raise
    about = {"model": str(folder), "fingerprint": fingerprint, "lazymlx": __version__}
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "lengths": plan.lengths, "max_loss": plan.max_loss}
    write_json(out, {**found.record(), **about, **made}, flag)
    journal.finish()
    say(found.sentence(plan.max_loss))
    say(f"stored in {out}" + (", which load uses from now on" if args.out is None else ""))
    write(f"{found.config.schedule}\n")
    return 0
