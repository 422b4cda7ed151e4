"""What a flag's value may be: converters for argparse, each of which says what it expected."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import LazyConfig

LOOKAHEAD: int = LazyConfig.lookahead


def number(
    kind: type[int] | type[float], least: int | float, most: int | float = math.inf
) -> Callable[[str], int | float]:
    """A converter for argparse that refuses what lies outside of a range (and nan, which lies nowhere)."""

    def convert(text: str) -> int | float:
        value = kind(text)
        if not least <= value <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {limits}, got {text}")
        return value

    convert.__name__ = {int: "whole number", float: "number"}[kind]  # argparse: "invalid whole number value: 'x'"
    return convert


def words(text: str) -> tuple[str, ...]:
    """A list of names, at least one."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, got {text!r}")
    return found


def lengths(text: str) -> tuple[int, ...]:
    """A list of token counts; k stands for 1,024."""
    try:
        return tuple(int(word.removesuffix("k")) * (1024 if word.endswith("k") else 1) for word in words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 1024 or 4k, got {text!r}") from None


def token_limit(text: str) -> int:
    """A number of tokens, or -1 for no limit."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1 and value != -1:
        raise argparse.ArgumentTypeError(f"must be at least 1, or -1 for no limit, got {text}")
    return value


def yes_or_no(text: str) -> bool:
    """mlx_lm's reading of a truth value: all but 'False' and 'F' is true."""
    return text.lower() not in ("false", "f")


def memory_size(text: str) -> int:
    """Bytes out of "12GB"; units are powers of 1000, as in every other figure of ours."""
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1, "": 1}
    digits = text.rstrip("bBgGkKmM ")
    unit = text[len(digits) :].strip().lower()
    try:
        count = int(float(digits) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a number of bytes, or such as 500MB or 12GB, got {text!r}") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return count


def named(text: str) -> str:
    """A name; an empty one, as of a shell's variable that is not set, would mean something else."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, got an empty text")
    return text


def path(text: str) -> Path:
    """The name of a file or a folder; an empty one, as of a shell's variable that is not set, would mean the current
    folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got an empty text")
    return Path(text)


def utf8(text: str) -> str:
    """A text as it is; what the shell passed on and is none has become surrogates, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be UTF-8 text") from None
    return text


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text}")
    return value


def number_or_all(text: str) -> int | None:
    """A number, or 'all'."""
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or 'all', got {text!r}") from None


def schedule_or_place(text: str) -> str | Path:
    """A schedule, or the file or folder that a calibration was written to."""
    place = Path(text)
    return place if "/" in text or place.suffix == ".json" or (text and place.exists()) else text


def rows_that_look(text: str) -> int:
    """A number of rows; 'on' is the default's, 'off' none."""
    try:
        return {"on": LOOKAHEAD, "off": 0}[text] if text in ("on", "off") else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be on, off or a whole number, got {text!r}") from None
