"""Files that are whole or refused: safetensors with a checksum, written beside their place and moved there.

It knows arrays and strings, and nothing of what they mean. Whatever happens while a file is written, its name stands
for the old one or the new one; whatever happened to it since, it is read as it was written or not at all.
"""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import mlx.core as mx

from .errors import DocumentError, UsageError
from .files import replacing

UNSEALED = "0" * 64  # stands for the checksum while it is computed
BLOCK = 1 << 20


@dataclass(frozen=True)
class Wording:
    """What messages say of a file.

    Attributes:
        what: begins them.
        again: what to do about a version that is not read.
        save_again: what to do about a file that is not as it was written.
        error: they are raised as this.
    """

    what: str
    again: str
    save_again: str
    error: type[UsageError]


DOCUMENT = Wording("document", "read the text again", "save it again", DocumentError)


def write_sealed(
    path: str | os.PathLike, arrays: dict[str, mx.array], header: dict[str, str], wording: Wording = DOCUMENT
) -> None:
    """Write a file; an older one of that name stays until the new one is safely on the disk.

    Raises:
        UsageError: the wording's own; the file cannot be written, or its name stands for a device or a pipe, say.
    """
    path = Path(path)
    try:
        if _is_other(path):
            _refuse(path, "cannot be written: it is no file", wording)
        with replacing(path) as file:
            mx.save_safetensors(file, arrays, {**header, "checksum": UNSEALED})
            checksum, at = _checksum(file)
            file.seek(at)
            file.write(checksum.encode())
    except OSError as error:
        _refuse(path, f"cannot be written: {error.strerror}", wording)


def is_sealed(path: str | os.PathLike, kind: str) -> bool:
    """Whether a file's header says this `kind`, of whatever version."""
    try:
        read_header(path, kind)
    except DocumentError:
        return False
    return True


def read_header(path: str | os.PathLike, kind: str, wording: Wording = DOCUMENT) -> dict[str, str]:
    """The strings in a file's header, which says this `kind`, of whatever version.

    Raises:
        UsageError: the wording's own; it cannot be read, or is something else.
    """
    path = Path(path)
    try:
        if _is_other(path):
            _refuse(path, "cannot be read: it is no file", wording)
        with path.open("rb") as file:
            return _header(file, path, kind, wording)[0]
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}", wording)


def read_sealed(
    path: str | os.PathLike, kind: str, version: str, wording: Wording = DOCUMENT
) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Read a file whose header says this `kind` and `version`.

    Raises:
        UsageError: the wording's own; it cannot be read, is something else, or is not as it was written.
    """
    path = Path(path)
    try:
        if _is_other(path):
            _refuse(path, "cannot be read: it is no file", wording)
        with path.open("rb") as file:
            header, size = _header(file, path, kind, wording)
            if header.get("version") != version:
                reason = f"has version {header.get('version')} of its format; this program reads {version}"
                _refuse(path, f"{reason}; {wording.again}", wording)
            have = file.seek(0, os.SEEK_END)
            if have < size:
                _refuse(path, f"was cut short: it has {have} of {size} bytes; {wording.save_again}", wording)
            if have > size or _checksum(file)[0] != header.get("checksum"):
                _refuse(path, f"was altered after it was saved; {wording.save_again}", wording)
            file.seek(0)  # of this file: by now the name may stand for another one
            arrays = _arrays(file, path, wording)
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}", wording)
    return arrays, header


def _arrays(file: BinaryIO, path: Path, wording: Wording) -> dict[str, mx.array]:
    try:
        arrays = mx.load(file, format="safetensors")
        assert isinstance(arrays, dict)
        mx.eval(arrays)
    except (RuntimeError, ValueError) as error:  # sealed, but with a table of arrays that cannot be one
        _refuse(path, f"is no saved {wording.what}: {error}", wording)
    return arrays


def _is_other(path: Path) -> bool:
    """Whether a name stands for a folder, a device or a pipe, say, which may never end or never begin."""
    return path.exists() and not path.is_file()


def _header(file: BinaryIO, path: Path, kind: str, wording: Wording) -> tuple[dict[str, str], int]:
    """The strings of the header, and how long the whole file has to be."""
    try:
        table = json.loads(_raw_header(file))
        header = table.pop("__metadata__")
        ends = [entry["data_offsets"][1] for entry in table.values()]
        size = file.tell() + max(ends, default=0)
        known = header["format"] == kind and all(isinstance(value, str) for value in header.values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error):
        _refuse(path, f"is no saved {wording.what}", wording)
    if not known:
        _refuse(path, f"is no saved {wording.what}", wording)
    return header, size


def _raw_header(file: BinaryIO) -> bytes:
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > file.seek(0, os.SEEK_END):
        raise ValueError("a header longer than the file")
    file.seek(8)
    return file.read(length)


def _checksum(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 of the whole file as it was before it was sealed, and where in the file the checksum belongs."""
    raw = _raw_header(file)
    # nowhere else: inside of another string its quotes would be escaped; and if it is gone, nothing fits
    before, name, after = raw.partition(b'"checksum":"')
    digest = hashlib.sha256(struct.pack("<Q", len(raw)) + before + name + UNSEALED.encode() + after[len(UNSEALED) :])
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest(), 8 + len(before + name)


def _refuse(path: Path, reason: str, wording: Wording) -> NoReturn:
    raise wording.error(f"{wording.what}: {path} {reason}") from None
