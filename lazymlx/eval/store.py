"""The answers of a run on disk, a line each as soon as it is given: what was done is kept, whatever happens next."""

import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import check_folder, holds, write_json
from ..journal import Journal, Row

ANSWERS, SETTINGS = "answers.jsonl", "settings.json"
OURS = {SETTINGS: "chip", "results.json": "cells"}  # files that are written, each with a field that ours have
Key = tuple[str, int, int, str, str]


def key_of(row: Row) -> Key:
    """What tells one answer from all others of a run."""
    return row["task"], row["length"], row["index"], row["policy"], row["point"]


def check_out(folder: Path, resume: bool) -> bool:
    """Refuse a folder that a run cannot be kept in. Returns whether it holds one already.

    Raises:
        UsageError: it cannot be written to, it holds a run and `resume` was not asked for, or files of another kind
            that would be lost.
    """
    check_folder(folder, "--out")
    path = folder / ANSWERS
    try:
        if path.exists():
            path.open("a").close()
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be written to: {error.strerror}") from None
    found = path.is_file() and path.stat().st_size > 0
    if found and not resume:
        raise UsageError(f"--out: {folder} holds a run already; go on with it by --resume, or name another folder")
    if not found:
        for name, field in OURS.items():
            if (folder / name).exists() and not holds(folder / name, field):
                raise UsageError(f"--out: {folder / name} is not of a run and would be lost; name another folder")
    return found


class Store:
    """A folder with `answers.jsonl`, and the settings that its answers share.

    Args:
        settings: what must be the same for answers to be comparable. Tasks, policies, lengths and counts need not:
            a resumed run may add to them.
        resume: go on with what the folder holds.

    Raises:
        UsageError: the folder cannot be written to, holds a run and `resume` was not asked for, or one with other
            settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool = False):
        self.folder, self.settings = folder, settings
        self.path = folder / ANSWERS
        found = check_out(folder, resume)
        if found:
            self._check_settings()
        self.journal = Journal(self.path, key_of, resume)
        self.write(SETTINGS, settings)

    def _check_settings(self) -> None:
        path = self.folder / SETTINGS
        try:
            was = _flat(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError):
            raise UsageError(f"--resume: {path} cannot be read; name another folder with --out") from None
        now = _flat(self.settings)
        other = [f"{name} was {was.get(name)}, is {now.get(name)}" for name in now if was.get(name) != now.get(name)]
        if other:
            raise UsageError(f"--resume: the run in {self.folder} has other settings: {'; '.join(other)}")

    @property
    def rows(self) -> list[Row]:
        """The answers, in the order in which they were given."""
        return list(self.journal.rows.values())

    def get(self, key: Key) -> Row | None:
        """An answer that was given before."""
        return self.journal.rows.get(key)

    def add(self, row: Row) -> None:
        """Keep an answer."""
        self.journal.add(row)

    def write(self, name: str, content: dict[str, Any]) -> Path:
        """Write a JSON file beside the answers, whole or not at all."""
        path = self.folder / name
        write_json(path, content, "--out")
        return path


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings, those of the engine one by one."""
    return {name: value for name, value in settings.items() if name != "lazy"} | settings.get("lazy", {})
