"""Flags that commands share. A lazy flag's default and help are those of its field in `LazyConfig`."""

import argparse
import os
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from ..config import MOST, STEP_SIZE, STORAGE, LazyConfig
from ..demo import MODEL
from ..errors import UsageError
from ..schedule import BOLD
from .values import memory_size, named, number, number_or_all, rows_that_look, schedule_or_place, token_limit

# mlx_lm.generate's defaults
MAX_TOKENS = 100
CONTEXT_SIZE = 20  # of its penalties
MODEL_VARIABLE = "LAZYMLX_MODEL"
HOTTEST = 1000  # all tokens are equally likely long before
SHORT_STEP_SIZE = 512  # a slow CPU handles Ctrl-C and moves its bar between two chunks, and loses no time by it

LAZY_FIELDS: tuple[Field, ...] = tuple(f for f in fields(LazyConfig) if f.name != "scorer")  # a scorer is Python

METAVARS = {int: "N", float: "X"}  # of a lazy field, by its default's type
CONVERTERS = {"revive": number_or_all, "schedule": schedule_or_place, "lookahead": rows_that_look}

# mlx_lm's flags that a lazy cache cannot serve; those named in `generation.REFUSED` have their reason there.
REFUSED = {
    "prompt_cache_file": "mlx-lm's files hold every token of every layer, which no lazy cache can start from",
    "image": "lazymlx reads text alone; leave it out",
    "quantize_activations": "activations are not quantised here; leave it out",
}


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """Which model."""
    parser.add_argument(
        "--model",
        type=named,
        metavar="PATH",
        default=os.environ.get(MODEL_VARIABLE, "").strip() or None,
        help=f"a model's folder or Hub name (default: ${MODEL_VARIABLE}, else config.toml's, else the embedded model)",
    )
    parser.add_argument("--adapter-path", metavar="PATH", help="a folder with trained adapter weights and their config")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with a model or its tokenizer"
    )


def add_generation_flags(parser: argparse._ActionsContainer, max_tokens: int = MAX_TOKENS) -> None:
    """How the next token is drawn; mlx_lm's flags and defaults."""
    add = parser.add_argument
    add(
        "--max-tokens",
        "-m",
        type=token_limit,
        default=max_tokens,
        metavar="N",
        help="most tokens to generate, -1: no limit (default: %(default)s)",
    )
    add(
        "--temp",
        type=number(float, 0, HOTTEST),
        default=0.0,
        metavar="X",
        help="temperature; 0 takes the likeliest token (default: %(default)s)",
    )
    add(
        "--top-p",
        type=number(float, 0, 1),
        default=1.0,
        metavar="X",
        help="nucleus: the likeliest tokens of this mass (default: %(default)s)",
    )
    add(
        "--min-p",
        type=number(float, 0, 1),
        default=0.0,
        metavar="X",
        help="least probability, as a share of the likeliest's (default: %(default)s)",
    )
    add(
        "--min-tokens-to-keep",
        type=number(int, 1, MOST),
        default=1,
        metavar="N",
        help="least tokens that min-p leaves (default: %(default)s)",
    )
    add(
        "--top-k",
        type=number(int, 0, MOST),
        default=0,
        metavar="N",
        help="the N likeliest tokens, 0: all (default: %(default)s)",
    )
    add(
        "--xtc-probability",
        type=number(float, 0, 1),
        default=0.0,
        metavar="X",
        help="how often XTC excludes top choices (default: %(default)s)",
    )
    add(
        "--xtc-threshold",
        type=number(float, 0, 0.5),
        default=0.1,
        metavar="X",
        help="what XTC takes for a top choice (default: %(default)s)",
    )
    add(
        "--repetition-penalty",
        type=number(float, 0),
        default=0.0,
        metavar="X",
        help="divide the scores of tokens that came lately, 1.1 for example; 0: do not (default: %(default)s)",
    )
    add(
        "--presence-penalty",
        type=number(float, -2, 2),
        default=0.0,
        metavar="X",
        help="subtract this from the scores of tokens that came lately (default: %(default)s)",
    )
    add(
        "--frequency-penalty",
        type=number(float, -2, 2),
        default=0.0,
        metavar="X",
        help="the same as often as each came (default: %(default)s)",
    )
    for name in ("repetition", "presence", "frequency"):
        add(
            f"--{name}-context-size",
            type=number(int, 1),
            default=CONTEXT_SIZE,
            metavar="N",
            help=f"how many tokens count as lately for the {name} penalty (default: %(default)s)",
        )
    add(
        "--extra-eos-token",
        nargs="+",
        default=(),
        metavar="TOKEN",
        help="more tokens, or their ids, that end an answer",
    )
    add_prefill_flags(parser)
    add("--seed", type=number(int, 0, 2**64 - 1), metavar="N", help="seed of the random numbers")


def add_prefill_flags(parser: argparse._ActionsContainer) -> None:
    """How a prompt is read."""
    add = parser.add_argument
    add(
        "--prefill-step-size",
        type=number(int, 1, MOST),
        metavar="N",
        help=f"prompt tokens computed at a time; fewer take less memory (default: {STEP_SIZE}; "
        f"{SHORT_STEP_SIZE} with the embedded model, or on a CPU)",
    )
    add(
        "--max-memory",
        type=memory_size,
        metavar="SIZE",
        help="refuse a prompt that would take more, weights included: bytes, or 500MB, 12GB (default: what the device "
        "recommends, if it does)",
    )


def add_lazy_flags(parser: argparse._ActionsContainer) -> None:
    """What to compute: one flag per field of `LazyConfig`, and a switch before all of them."""
    parser.add_argument(
        "--lazy",
        choices=("auto", "on", "off"),
        default="auto",
        help="leave tokens behind: auto, of prompts from --min-tokens on; on: whatever the length; off: never "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help=f"the preset {BOLD} in place of a cautious default; it may lose evidence, pairs of keys and values first",
    )
    for field in LAZY_FIELDS:
        choices = field.metadata.get("choices")
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_converter(field),
            default=field.default,
            choices=choices,
            metavar=None if choices else METAVARS.get(type(field.default), "CUTS"),
            help=f"{field.metadata['help']} (default: {'off' if field.default is None else '%(default)s'})",
        )


def _converter(field: Field) -> Callable[[str], Any]:
    return CONVERTERS.get(field.name, int if field.default is None else type(field.default))


def step_size(args: argparse.Namespace) -> int:
    """Prompt tokens to compute at a time; loads MLX."""
    from ..machine import on_cpu

    return args.prefill_step_size or (SHORT_STEP_SIZE if args.model is None or on_cpu() else STEP_SIZE)


def lazy_config(args: argparse.Namespace, mode: str | None = None) -> LazyConfig:
    """The configuration that the lazy flags ask for; it says itself what is wrong with a value.

    Args:
        mode: in the place of what `--lazy` says.
    """
    given, mode = {field.name: getattr(args, field.name) for field in LAZY_FIELDS}, mode or args.lazy
    if isinstance(args.schedule, Path):  # which `load` reads
        given["schedule"] = "auto"
    if args.fast:
        flags = args.given & {"fast", "schedule"}  # which go before what config.toml has
        if len(flags) == 2 or not flags and args.schedule != "auto":
            where = "" if flags else " of the two in config.toml"
            raise UsageError(
                f"--fast: it is the schedule {BOLD}, and {args.schedule} is given too; leave out one{where}"
            )
        if "schedule" not in flags:
            given["schedule"] = BOLD
    if mode == "off":
        return replace(LazyConfig.dense(), **{name: given[name] for name in STORAGE})
    if mode == "on":
        given["min_tokens"] = 0
    return LazyConfig(**given)


def refuse_settled(args: argparse.Namespace) -> None:
    """Refuse what would change how a saved document was read.

    Raises:
        UsageError: it was given.
    """
    if "system_prompt" in args.given:
        raise UsageError("--system-prompt: goes without --document, which was read before; leave out one of the two")
    if args.given & {"lazy", "fast", *(field.name for field in LAZY_FIELDS)}:
        raise UsageError("--document: it keeps the configuration it was saved with; leave out the flags that change it")


def model_name(args: argparse.Namespace) -> str:
    """A model's folder or Hub name."""
    return str(MODEL) if args.model is None else args.model


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say to `load`, beside the model and the configuration; loads MLX."""
    from ..ranks.group import ALONE

    calibration = args.schedule if isinstance(args.schedule, Path) else None
    return {
        "adapter_path": args.adapter_path,
        "trust_remote_code": args.trust_remote_code,
        "fixed": args.given - {"schedule"} if calibration else args.given,
        "calibration": calibration,
        "ranks": args.ranks or ALONE,
    }


def add_overwrite_flag(parser: argparse._ActionsContainer) -> None:
    """What a script says where a person is asked."""
    parser.add_argument("--overwrite", action="store_true", help="replace another conversation's file without asking")


def add_refused_flags(parser: argparse._ActionsContainer) -> None:
    """mlx_lm's flags that mean nothing here: read, so that each can be answered with a reason."""
    for flag in ("--max-kv-size", "--draft-model", "--prompt-cache-file"):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    parser.add_argument("--image", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--quantize-activations", "-qa", action="store_true", default=None, help=argparse.SUPPRESS)
    # a companion of the flags above, and one that mlx_lm itself ignores: harmless on their own
    parser.add_argument("--num-draft-tokens", help=argparse.SUPPRESS)
    parser.add_argument("--use-default-chat-template", action="store_true", help=argparse.SUPPRESS)


def refuse(args: argparse.Namespace, reasons: dict[str, str]) -> None:
    """Answer flags of `reasons` that were given.

    Raises:
        UsageError: one was given; the message is its reason.
    """
    for name, reason in reasons.items():
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {reason}")
