"""`lazymlx COMMAND`: finds the command, and turns what goes wrong into one line and an exit code.

Exit codes: 0; 2 for a request that makes no sense; 1 for a failure while running; 130 after Ctrl-C. A reader that
closes the pipe has seen enough: that ends quietly, with 0.
"""

import os
import sys
import traceback
from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib import import_module

from .. import __version__
from ..errors import LazyMLXError, UsageError
from .defaults import set_defaults
from .parser import Parser
from .party import Party
from .terminal import EXIT_INTERRUPTED, prepare, say, silence, write


@dataclass(frozen=True)
class Command:
    """One command, done by the module of its name below lazymlx.cli.

    Attributes:
        help: what it does, in a line.
        essential: the flags that --help shows, if not all of them fit a screen.
        together: several ranks can do it together.
    """

    help: str
    essential: tuple[str, ...] = ()
    together: bool = False


ANSWERING = ("model", "document", "system-prompt", "max-tokens", "temp", "lazy", "fast", "schedule")

COMMANDS = {
    "generate": Command(
        "answer a prompt, or a question about a document (mlx_lm.generate's flags)",
        (*ANSWERING, "prompt", "prompt-file", "question", "compare", "explain", "stats-json"),
        together=True,
    ),
    "chat": Command("talk about documents that are read once (mlx_lm.chat's flags)", ANSWERING, together=True),
    "serve": Command(
        "answer chat clients over HTTP, by OpenAI's and Anthropic's interfaces",
        ("model", "host", "port", "api-key", "cache-dir", "max-memory", "lazy", "fast", "schedule"),
        together=True,
    ),
    "cache": Command(
        "read a document once and save it, for any number of questions",
        ("output", "overwrite", "model", "prompt-file", "prompt", "system-prompt", "lazy", "fast", "schedule"),
        together=True,
    ),
    "calibrate": Command(
        "find the schedule that a model bears, and store it for later",
        ("model", "texts", "lengths", "max-loss", "target-speedup", "kinds", "out", "resume"),
    ),
    "eval": Command(
        "measure what pruning costs in quality, beside the dense model and rival methods",
        ("model", "tasks", "policies", "lengths", "n", "data", "reference", "schedules", "out", "resume"),
    ),
    "bench": Command(
        "measure speed and memory beside stock mlx-lm, on this machine",
        ("model", "shape", "bits", "shapes", "quick", "lengths", "schedules", "only", "budget-s", "out"),
        together=True,
    ),
    "doctor": Command("say what lazymlx runs on, and what would make it run better"),
    "models": Command("list the models on this machine, or fetch one"),
    "completion": Command("write a script with which a shell completes commands and flags"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    party = Party()
    try:
        code, reason = _told(party, list(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        party.fail(error)
        raise
    party.end(code, reason)
    return code


def _told(party: Party, argv: list[str]) -> tuple[int, str]:
    """Run a command line, and say what went wrong, if anything did. Returns the exit code, and the reason."""
    try:
        try:
            prepare()
            party.stand_back()
            return _run(party, argv), ""
        finally:
            write("")  # what is left in the buffer, while an error can still be answered
    except LazyMLXError as error:
        if os.environ.get("LAZYMLX_TRACEBACK"):
            traceback.print_exc()
        say(f"error: {error}")
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED, ""
    except BrokenPipeError:
        silence(sys.stdout, sys.stderr)
        return 0, ""


def _run(party: Party, argv: list[str]) -> int:
    wanted = next((word for word in argv if not word.startswith("-")), None)
    parser, made = make_parser(set() if wanted is None else {wanted})
    if wanted in made:
        set_defaults(made[wanted], wanted, COMMANDS, lambda name: make_parser({name})[1][name])
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        made.get(str(wanted), parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if wanted is None:
        parser.print_help(sys.stderr)
        return 2
    if party.launched and not COMMANDS[wanted].together:
        raise UsageError(f"{wanted}: one process does it; start it without a launcher")
    args.ranks = party.meet()
    return args.run(args)


def make_parser(wanted: Set[str]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of every command line, and those of the commands that are wanted.

    The others have a name and a line of help: their modules are not even imported.
    """
    parser = Parser(prog="lazymlx", description="LazyLLM on MLX: a long prompt answered without computing all of it.")
    parser.add_argument("--version", action="version", version=f"lazymlx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND [FLAGS]")
    made: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        text = command.help
        below = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name in wanted:
            made[name], module = below, import_module(f".{name}", __package__)
            if command.essential:
                below.shorten_help(command.essential)
            module.add_arguments(below)
            below.set_defaults(run=module.run)
    return parser, made
