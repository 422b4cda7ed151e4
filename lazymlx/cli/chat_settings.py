"""What /set changes in a chat: the flags of generation and the system prompt, by their names without dashes."""

import argparse
from collections.abc import Iterator
from typing import NoReturn

from ..errors import UsageError
from . import options, values

OTHER_NAMES = {"temperature": "temp", "system": "system-prompt"}
FIXED = ("extra-eos-token", "prefill-step-size", "max-memory")  # flags that hold for the whole chat


class SettingsParser(argparse.ArgumentParser):
    """The flags, read one at a time."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"set: {message.removeprefix('argument ')}")


def settings(args: argparse.Namespace, name: str = "") -> Iterator[str]:
    """What there is to set, or the one of this name, and what it is set to.

    Raises:
        UsageError: there is no such name.
    """
    for known in [_known(name)] if name else _names(_parser()):
        yield setting(args, known)


def setting(args: argparse.Namespace, words: str) -> str:
    """The name that these words begin with, and what it is set to."""
    name = _name(words)
    value = getattr(args, name.replace("-", "_"))
    return f"{name} {'(none)' if value is None else value}"


def changed(args: argparse.Namespace, words: str) -> argparse.Namespace:
    """The settings, with a name's value as the words say.

    Raises:
        UsageError: there is no such name, or the value makes no sense.
    """
    name, value = _known(words), words.split(maxsplit=1)[1]
    return _parser().parse_args([f"--{name}={value}"], argparse.Namespace(**vars(args)))


def is_system_prompt(words: str) -> bool:
    """Whether it is the system prompt that is set, which stands before all that was read."""
    return _name(words) == "system-prompt"


def _parser() -> SettingsParser:
    parser = SettingsParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--system-prompt", type=values.utf8)
    options.add_generation_flags(parser)
    return parser


def _names(parser: SettingsParser) -> list[str]:
    known = (dest.replace("_", "-") for dest in vars(parser.parse_args([])))
    return [name for name in known if name not in FIXED]


def _known(words: str) -> str:
    """The name that these words begin with, if it is one."""
    name, names = _name(words), _names(_parser())
    if name not in names:
        raise UsageError(f"set: there is no {name!r}; expected one of {', '.join(names)}")
    return name


def _name(words: str) -> str:
    name = words.split(maxsplit=1)[0]
    return OTHER_NAMES.get(name, name)
