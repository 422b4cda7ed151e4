"""The user's folders, by the XDG base directory specification, which wants relative paths to be ignored."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """What can be had again, if it takes time: schedules, fetched models, the history of chats."""
    return _folder("XDG_CACHE_HOME", ".cache")


def config_folder() -> Path:
    """What the user has written."""
    return _folder("XDG_CONFIG_HOME", ".config")


def _folder(variable: str, usual: str) -> Path:
    given = os.environ.get(variable, "")
    return (Path(given) if os.path.isabs(given) else Path.home() / usual) / "lazymlx"
