"""argparse as every command here has it: errors of one line, and a --help that fits a screen."""

import argparse
import copy
import re
from collections.abc import Collection, Set
from typing import Any, NoReturn

from ..errors import UsageError

FLAGS_WIDTH = 28  # columns for flags before their help
DEFAULT = " (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A command's arguments. Its errors are ours, without the whole usage before them."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        self._essential: Set[str] = frozenset()

    def shorten_help(self, essential: Collection[str]) -> None:
        """Let --help show only these flags, with the first words of each; --help-all shows everything."""
        self._essential = {"--help", "--help-all", *(f"--{name}" for name in essential)}
        self.add_argument("--help-all", action=HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all flags")

    def format_help(self) -> str:
        """The help: a screen, if it was shortened."""
        if not self._essential:
            return self.format_full_help()
        formatter = self._get_formatter()
        formatter.add_usage("%(prog)s [FLAGS]", [], [])
        formatter.add_text(self.description)
        formatter.start_section("flags")
        shown = (action for action in self._actions if not self._essential.isdisjoint(action.option_strings))
        formatter.add_arguments([_briefly(action) for action in shown])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def format_full_help(self) -> str:
        """The help with every flag."""
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")

    def _get_formatter(self) -> argparse.HelpFormatter:
        return Formatter(prog=self.prog)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines, and a flag's value is named once: `-m, --max-tokens N`."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=FLAGS_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if len(action.option_strings) < 2:
            return super()._format_action_invocation(action)
        names = ", ".join(sorted(action.option_strings, key=len))
        value = "" if action.nargs == 0 else self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{names} {value}".rstrip()


class HelpAll(argparse.Action):
    """Shows every flag, and ends."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_full_help(), end="")
        parser.exit()


def _briefly(action: argparse.Action) -> argparse.Action:
    """The same flag, of whose help nothing is left but the first words and a plain default."""
    text = action.help or ""
    brief = copy.copy(action)
    brief.help = re.split(r"; | \(", text)[0] + (DEFAULT if text.endswith(DEFAULT) else "")
    return brief
