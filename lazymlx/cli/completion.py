"""`lazymlx completion`: a script with which a shell completes commands, flags and file names; shtab writes it."""

import argparse

from ..errors import UsageError
from .terminal import write

SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = """\
examples:
  lazymlx completion bash > ~/.local/share/bash-completion/completions/lazymlx
  lazymlx completion zsh > ~/.zfunc/_lazymlx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of `lazymlx completion`."""
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=SHELLS, help="which shell is to be taught")


def run(args: argparse.Namespace) -> int:
    """Write the script to stdout."""
    try:
        import shtab
    except ImportError:
        raise UsageError("completion: it takes shtab; install it with: pip install 'lazymlx[completion]'") from None
    from .main import COMMANDS, make_parser

    parser, _ = make_parser(set(COMMANDS))
    write(shtab.complete(parser, shell=args.shell) + "\n")
    return 0
