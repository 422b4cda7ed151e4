"""What a long run has found out, on the disk: a line of JSON each, as soon as it is known. Whatever ends the run early,
it goes on later from there."""

import json
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError

Row = dict[str, Any]


class Journal:
    """Rows by what tells each from all others. Nothing is written before there is a row to keep.

    Args:
        path: the file.
        key_of: of a row; raises a `LookupError` or a `TypeError` at what is no row of such a run.
        resume: go on with what the file holds.

    Raises:
        UsageError: the file holds something else.
    """

    def __init__(self, path: Path, key_of: Callable[[Row], Hashable], resume: bool = False):
        self.path, self.key_of = path, key_of
        self.rows: dict[Hashable, Row] = {}
        if resume and path.exists():
            self._read()

    def _read(self) -> None:
        """A last line that was cut off by an interruption is removed: what it was about is done again."""
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):  # though it may be no more than this that it lacks
                os.truncate(self.path, whole)
                break
            try:
                row = json.loads(line)
                self.rows[self.key_of(row)] = row
            except (ValueError, LookupError, TypeError):
                raise UsageError(
                    f"--resume: {self.path}, line {number} is not of such a run; remove it to go on"
                ) from None
            whole += len(line)

    def add(self, row: Row) -> None:
        """Keep a row.

        Raises:
            RunError: it could not be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise RunError(f"{self.path} could not be written: {error.strerror}; --resume goes on from there") from None
        self.rows[self.key_of(row)] = row

    def finish(self) -> None:
        """The run is done and its result stored elsewhere: there is nothing left to go on with."""
        self.path.unlink(missing_ok=True)
