"""Defaults of one's own: `config.toml` in the user's configuration folder. Its keys are flags without their dashes.

    model = "smollm2"
    temp = 0.3

    [chat]
    max-tokens = 1000

What stands above the tables goes to every command that answers, a model to every command; a table's keys go to the
command of its name. A flag goes before them, and so does LAZYMLX_MODEL.
"""

import json
import os
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..places import config_folder
from .options import MODEL_VARIABLE
from .parser import Parser

ANSWERING = ("generate", "chat", "cache", "serve")
ANYWHERE = ("model", "trust-remote-code")
ONE_RUN = (
    *("adapter-path", "compare", "document", "explain", "help", "help-all", "output", "overwrite", "prefill-response"),
    *("prompt", "prompt-file", "question", "stats-json"),
)

Values = dict[str, Any]
ParserOf = Callable[[str], Parser]


def config_file() -> Path:
    return config_folder() / "config.toml"


def set_defaults(parser: Parser, command: str, commands: Collection[str], parser_of: ParserOf) -> None:
    """Give a command's flags the defaults that the user's file has for them.

    Args:
        commands: all there are.
        parser_of: another command's parser, to tell a key that is not this one's from a mistake.

    Raises:
        UsageError: the file cannot be read, or something in it makes no sense.
    """
    path = config_file()
    content = _read(path)
    tables = {key: value for key, value in content.items() if key in commands and isinstance(value, dict)}
    for key in content.keys() - tables.keys():
        if key in commands:
            raise _wrong(path, f"[{key}] is the place for flags of 'lazymlx {key}', got {content[key]!r}")
        known = parser.has_flag(key)
        if not known and not any(parser_of(name).has_flag(key) for name in ANSWERING if name != command):
            raise _wrong(path, f"{key!r} is neither a flag nor a command; 'lazymlx generate --help-all' lists flags")
        if known and (command in ANSWERING or key in ANYWHERE):
            _set(parser, key, content[key], path)
    for key, value in tables.get(command, {}).items():
        if not parser.has_flag(key):
            raise _wrong(path, f"'lazymlx {command}' has no flag --{key}")
        _set(parser, key, value, path)


def _read(path: Path) -> Values:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(path, f"it cannot be read: {error.strerror}") from None
    except ValueError as error:  # of TOML, and of UTF-8
        raise _wrong(path, f"it is no TOML: {error}") from None


def _set(parser: Parser, key: str, value: Any, path: Path) -> None:
    if key in ONE_RUN:
        raise _wrong(path, f"{key} belongs to a single run; give it as a flag")
    if key == "model" and os.environ.get(MODEL_VARIABLE):
        return
    try:
        parser.set_flag(key, json.dumps(value) if isinstance(value, dict) else value)
    except TypeError:  # TOML has times and dates
        raise _wrong(path, f"{key}: expected texts, numbers, true or false in it, got {value}") from None
    except UsageError as error:
        raise _wrong(path, str(error)) from None


def _wrong(path: Path, reason: str) -> UsageError:
    return UsageError(f"config: {path}: {reason}")
