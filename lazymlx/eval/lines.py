"""Lines of a file of questions: read one by one, and what is wrong with one is said with its number."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError

NAMES = {str: "a string", list: "a list", dict: "an object", int: "a number", bool: "true or false", type(None): "null"}


class Line:
    """One line of a file: its fields, or an error that names them."""

    def __init__(self, path: Path, number: int, fields: dict[str, Any]):
        self.path, self.number, self.fields = path, number, fields

    def error(self, what: str) -> UsageError:
        return UsageError(f"--data: {self.path}, line {self.number}: {what}")

    def get(self, name: str, kind: type) -> Any:
        """A field that must be there and of this type."""
        if name not in self.fields:
            raise self.error(f"field {name!r} is missing")
        value = self.fields[name]
        if not isinstance(value, kind):
            raise self.error(f"field {name!r} must be {NAMES[kind]}, got {NAMES.get(type(value), str(value))}")
        return value

    def text(self, name: str) -> str:
        return self.get(name, str)

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of strings, at least one."""
        values = self.get(name, list)
        if not values:
            raise self.error(f"field {name!r} is empty: there is no answer to compare with")
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"field {name!r} must hold strings only")
        if not any(value.strip() for value in values):
            raise self.error(f"field {name!r} holds empty strings only: there is no answer to compare with")
        return tuple(values)

    @classmethod
    def of(cls, path: Path, number: int, text: str) -> "Line":
        """Read a line of JSON."""
        try:
            fields = json.loads(text.rstrip())
        except json.JSONDecodeError as error:
            why = error.msg.removesuffix(" at")
            raise UsageError(f"--data: {path}, line {number}: not JSON: {why} at column {error.colno}") from None
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
            raise UsageError(f"--data: {path}, line {number}: cannot be read as JSON: {error}") from None
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"--data: {path}, line {number}: holds half of a surrogate pair, which is no text"
            ) from None
        if not isinstance(fields, dict):
            raise UsageError(
                f"--data: {path}, line {number}: expected an object, got {NAMES.get(type(fields), 'a number')}"
            )
        return cls(path, number, fields)


def raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, also of a .gz.

    Raises:
        UsageError: the file cannot be read, or is not UTF-8.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            yield from enumerate(file, 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"--data: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--data: {path} is not UTF-8 text ({error.reason}); save it as that") from None
