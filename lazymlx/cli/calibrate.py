"""`lazymlx calibrate`: find the schedule that a model bears, and store it for `load`."""

import argparse
from datetime import UTC, datetime

from .. import __version__
from ..calibrate.material import read_texts
from ..calibrate.plan import Plan
from ..errors import UsageError
from ..files import write_json
from ..loading import stored as schedules
from .options import add_model_flags, model_name
from .terminal import say, write
from .values import lengths, number, path, words

EXAMPLES = """\
examples:
  lazymlx calibrate --model PATH                          the fastest schedule that loses 0.1 nats a token at most
  lazymlx calibrate --model PATH --kinds prose,summary    for questions on prose and summaries alone
  lazymlx calibrate --model PATH --texts notes/           on your own texts
  lazymlx calibrate --model PATH --target-speedup 2       the least loss at half of the operations
"""
PLAN = Plan()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `lazymlx calibrate`; defaults are those of `Plan`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add_model_flags(parser)
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
    add("--out", type=path, metavar="FILE", help="where to store the schedule (default: where load looks for it)")
    add("--resume", action="store_true", help="go on with a calibration that was interrupted")


def run(args: argparse.Namespace) -> int:
    """Calibrate; whatever can be refused without loading the model is refused first."""
    plan = Plan(
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
    from ..calibrate.trials import Book, open_journal
    from ..config import LazyConfig
    from ..loading.hub import find
    from ..loading.load import load
    from .bar import Steps

    if args.adapter_path is not None and args.out is None:
        raise UsageError("--adapter-path: needs --out, since load looks for the schedule of the model without it")
    folder = find(model_name(args))
    out, flag = (schedules.user_file(folder), "schedule") if args.out is None else (args.out, "--out")
    schedules.check_writable(out, flag)
    fingerprint = schedules.fingerprint(folder)
    measured = {"model": fingerprint, "adapter": args.adapter_path, "lazymlx": __version__}
    journal = open_journal(out.with_suffix(".partial.jsonl"), measured, args.resume)
    model, tokenizer = load(
        str(folder), LazyConfig.dense(), adapter_path=args.adapter_path, trust_remote_code=args.trust_remote_code
    )
    try:
        with Steps("prompts") as steps:
            book = Book(journal, measured)
            calibrator = Calibrator(model, tokenizer, plan, book=book, on_prompt=steps, say=steps.say)
            steps.say(
                f"calibrating {folder} on {', '.join(plan.kinds)}, prompts of {' and '.join(map(str, plan.lengths))} "
                f"tokens; this takes about {calibrator.minutes():.0f} minutes, by what a first prompt took; "
                "interrupted at any time, it goes on with --resume"
            )
            found = calibrator.run()
    except KeyboardInterrupt:
        if journal.rows:
            say(f"what was measured is kept in {journal.path}; go on with --resume")
        raise
    about = {"model": str(folder), "fingerprint": fingerprint, "lazymlx": __version__}
    made = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lengths": plan.lengths,
        "max_loss": plan.max_loss,
        "unit": "nats a token",
        "kinds": plan.kinds,
    }
    write_json(out, {**found.record(), **about, **made}, flag)
    journal.finish()
    say(found.sentence(plan.max_loss))
    say(f"stored in {out}" + (", which load uses from now on" if args.out is None else ""))
    write(f"{found.config.schedule}\n")
    return 0
