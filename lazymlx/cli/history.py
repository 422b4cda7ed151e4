"""What was said in earlier chats, for the arrow keys: a file in the user's cache folder, a message a line."""

import json
import os
from contextlib import suppress
from pathlib import Path

from ..places import cache_folder

HISTORY = 1000  # messages that are remembered


def history_file() -> Path:
    """Where messages are remembered, as JSON strings: a message may have several lines."""
    return cache_folder() / "chat_history"


def load_history(path: Path) -> list[str]:
    """The newest messages of a history file, oldest first; a longer file is cut to them."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > 2 * HISTORY:
            _write(path, lines[-HISTORY:], os.O_TRUNC)
    except OSError:
        return []
    messages = []
    for line in lines[-HISTORY:]:
        with suppress(ValueError):  # a line that another program wrote
            message = json.loads(line)
            if isinstance(message, str):
                messages.append(message)
    return messages


def append_history(path: Path, message: str) -> None:
    """Remember a message beyond this chat. What the user says is nobody else's business: nobody else may read it."""
    with suppress(OSError):  # a history is a comfort, and no reason to stop
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, [json.dumps(message)], os.O_APPEND)


def _write(path: Path, lines: list[str], how: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o600)
        file.write("".join(f"{line}\n" for line in lines))
