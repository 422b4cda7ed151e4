"""`lazymlx COMMAND`: finds the command, and turns what goes wrong into one line and an exit code.

Exit codes: 0; 2 for a request that makes no sense; 1 for a failure while running; 130 after Ctrl-C. A reader that
closes the pipe has seen enough: that ends quietly, with 0.
"""

import os
import sys
import traceback
from collections.abc import Sequence, Set
from importlib import import_module

from .. import __version__
from ..errors import LazyMLXError
from .options import Parser
from .terminal import EXIT_INTERRUPTED, prepare, say, silence, write

# A command is one line: its name, the module below lazymlx.cli that does it, and its line of help.
COMMANDS: dict[str, tuple[str, str]] = {
    "generate": ("generate", "answer a prompt, or a question about a document (mlx_lm.generate's flags)"),
    "chat": ("chat", "talk about documents that are read once (mlx_lm.chat's flags)"),
    "serve": ("serve", "answer chat clients over HTTP, by OpenAI's interface"),
    "cache": ("cache", "read a document once and save it, for any number of questions"),
    "calibrate": ("calibrate", "find the schedule that a model bears, and store it for later"),
    "eval": ("eval", "measure what pruning costs in quality, beside the dense model and rival methods"),
    "bench": ("bench", "measure speed and memory beside stock mlx-lm, on this machine"),
    "completion": ("completion", "write a script with which a shell completes commands and flags"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    try:
        try:
            prepare()
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            write("")  # what is left in the buffer, while an error can still be answered
    except LazyMLXError as error:
        if os.environ.get("LAZYMLX_TRACEBACK"):
            traceback.print_exc()
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout, sys.stderr)
        return 0


def _run(argv: list[str]) -> int:
    wanted = next((word for word in argv if not word.startswith("-")), None)
    parser, made = make_parser(set() if wanted is None else {wanted})
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        made.get(str(wanted), parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if wanted is None:
        parser.print_help(sys.stderr)
        return 2
    return args.run(args)


def make_parser(wanted: Set[str]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of every command line, and those of the commands that are wanted.

    The others have a name and a line of help: their modules are not even imported.
    """
    parser = Parser(prog="lazymlx", description="LazyLLM on MLX: a long prompt answered without computing all of it.")
    parser.add_argument("--version", action="version", version=f"lazymlx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    made: dict[str, Parser] = {}
    for name, (module_name, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name in wanted:
            made[name], module = command, import_module(f".{module_name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser, made
