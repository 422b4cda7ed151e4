"""argparse as every command here has it: errors of one line, a --help that fits a screen, and a record of what was
given."""

import argparse
import copy
import re
from collections.abc import Collection, Set
from typing import Any, NoReturn

from ..errors import UsageError

FLAGS_WIDTH = 28  # columns for flags before their help
DEFAULT = " (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A command's arguments. Its errors are ours, without the whole usage before them; `given` in what it parses names
    the flags that came, whatever their values."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        self.register("action", None, Noted)
        self.register("action", "store_true", NotedTrue)
        self.set_defaults(given=frozenset(), ranks=None)
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

    def has_flag(self, name: str) -> bool:
        return f"--{name}" in self._option_string_actions

    def set_flag(self, name: str, value: Any) -> None:
        """Make a value, or a list of values, a flag's default.

        Raises:
            UsageError: the flag cannot have it.
        """
        action = self._option_string_actions[f"--{name}"]
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise UsageError(f"{name}: expected true or false, got {value!r}")
            self.set_defaults(**{action.dest: value})
            return
        if isinstance(value, list) and action.nargs is None:
            raise UsageError(f"{name}: expected one value, got {value}")
        words = [str(word) for word in (value if isinstance(value, list) else [value])]
        try:
            self.set_defaults(**{action.dest: self._get_values(action, words)})
        except argparse.ArgumentError as error:
            raise UsageError(f"{name}: {error.message}") from None

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


class Noted(argparse.Action):
    """Stores a flag's value, and in `given` that it came."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        self.note(namespace, values)

    def note(self, namespace: argparse.Namespace, value: Any) -> None:
        setattr(namespace, self.dest, value)
        namespace.given = getattr(namespace, "given", frozenset()) | {self.dest}


class NotedTrue(Noted):
    """The same for a flag without a value."""

    def __init__(self, option_strings, dest, default=False, **options: Any):
        super().__init__(option_strings, dest, nargs=0, default=default, **options)

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        self.note(namespace, True)


class Once(Noted):
    """Of two values one would be lost, so a second is refused."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "expected once, and it is given twice; leave out one of the two")
        self.note(namespace, values)


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
