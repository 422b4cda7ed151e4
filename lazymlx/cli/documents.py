"""Which document a user means, who types a path or an address."""

import os
import shlex
from pathlib import Path

from ..documents import ADDRESS
from ..errors import PromptError


def path_of(words: str) -> Path:
    """The file that a user means: a path as it is, or as a shell would want it (quoted, or with backslashes).

    Raises:
        PromptError: no file can have such a name.
    """
    if "\0" in words:
        raise PromptError("file: its name has a zero byte in it, which none can have")
    path = Path(os.path.expanduser(words))  # Path.expanduser() raises for a user who does not exist
    if os.path.exists(path):  # and Path.exists() if a name is too long
        return path
    try:
        parts = shlex.split(words)
    except ValueError:  # a quote that is never closed belongs to the name
        return path
    return Path(os.path.expanduser(parts[0])) if len(parts) == 1 else path


def sources_of(words: str) -> list[Path | str]:
    """What a user wants to be read: a path, see `path_of`, or an address; or several, as a shell would take them, if
    all of them are there."""
    whole = _source_of(words)
    try:
        several = [_source_of(part) for part in shlex.split(words)]
    except ValueError:
        return [whole]
    there = all(isinstance(source, str) or os.path.exists(source) for source in several)
    return several if there and not (isinstance(whole, Path) and os.path.exists(whole)) else [whole]


def as_source(text: str) -> Path | str:
    """A path or an address, from its text."""
    return text if ADDRESS.match(text) else Path(text)


def _source_of(words: str) -> Path | str:
    return words if ADDRESS.match(words) else path_of(words)
