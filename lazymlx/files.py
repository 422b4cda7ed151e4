"""Files and folders that results go to: tried before the work begins, written whole or not at all when it is done."""

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO
from zlib import crc32

from .errors import RunError, UsageError

HEAD = 4096  # bytes
BESIDE = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<process>[1-9][0-9]*)-[0-9]+\.lazymlx", re.DOTALL)


def check_file(path: Path, flag: str, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a file that cannot be written or would be lost, before anything is computed for it.

    Args:
        flag: what the user gave the path with.
        is_ours: whether a file that is there, and not empty, is one that may be replaced.

    Raises:
        UsageError: its folder is missing or may not be written to, it is a folder itself, or a file of another kind.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{flag}: {path} is a folder; expected a file")
        if not path.parent.is_dir():
            raise UsageError(f"{flag}: there is no folder {path.parent}; make it first, or name another place")
        if is_stream(path):
            return
        if not path.exists():
            _try(_beside(path.resolve()))
            return
        path.open("a").close()
        if path.stat().st_size and not is_ours(path):
            raise UsageError(f"{flag}: {path} is a file of another kind, which would be lost; name another place")
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written: {error.strerror}") from None


def check_folder(path: Path, flag: str) -> None:
    """Refuse a folder where nothing can be written, or that cannot be made; it is made when something is.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: it, or what it would lie in, is a file or cannot be written to.
    """
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if _is_there(folder))
        if not there.is_dir():
            raise UsageError(f"{flag}: {there} is no folder")
        _try(_beside(there / "trial"))
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written to: {error.strerror}") from None


def holds(path: Path, field: str) -> bool:
    """Whether a file is a JSON object with this field, as one that we have written is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and field in content


def mentions(path: Path, words: str) -> bool:
    """Whether a file has these words near its top, as a page that we have written has."""
    with path.open("rb") as file:
        return words.encode() in file.read(HEAD)


def is_stream(path: Path) -> bool:
    """Whether a name stands for a device, a pipe, or one of the process's own streams: nothing to be replaced."""
    return Path("/dev") in path.absolute().parents or (path.exists() and not path.is_file())


def write_json(path: Path, content: Mapping[str, Any], flag: str) -> None:
    """Write plain values; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", flag)


def write_text(path: Path, text: str, flag: str) -> None:
    """Write a text, see `replacing`; its folder is made.

    Raises:
        RunError: it could not be written, because a disk is full, say.
    """
    try:
        if is_stream(path):
            with path.open("a", encoding="utf-8") as file:  # of a stream that goes to a file, nothing is cut off
                file.write(text)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise RunError(f"{flag}: {path} could not be written: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once it is complete and safely on the disk: whatever happens meanwhile,
    the name stands for the old file or the new one. Who may read an old one may read the new one.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()  # a link stays one
    temporary = _beside(path)
    _remove_orphans(path.parent)
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    """Whether the name is taken, by a link that leads nowhere, say. What cannot be a name at all is an `OSError`."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{get_ident()}.lazymlx")


def _host() -> str:
    """This machine, in a few letters: elsewhere, a folder that several share has other processes."""
    return f"{crc32(platform.node().encode()):08x}"


def _remove_orphans(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left unfinished."""
    for entry in folder.iterdir():
        written = BESIDE.fullmatch(entry.name)
        if written and written["host"] == _host() and not _runs(int(written["process"])):
            with suppress(OSError):  # of somebody else, say; or another process was faster
                entry.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new name as safe as the file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _try(path: Path) -> None:
    path.touch()
    path.unlink()
