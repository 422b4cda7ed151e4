"""Schedules on the disk: what `lazymlx calibrate` found for a model, and what `load` uses from then on.

A file holds a JSON object: the fields of `LazyConfig` that were found, and beside them how well they did. It lies in
the user's cache folder under the model's name, or travels in the model's folder, or in one of its own, as
`lazymlx.json`. Maps to look ahead with lie beside it, and the object says so. A fingerprint tells when another model
has taken the place of the one that was calibrated.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..config import LazyConfig
from ..errors import ConfigError
from ..files import check_file, check_folder, holds
from ..places import cache_folder

BESIDE = "lazymlx.json"
FIELDS = tuple(f.name for f in dataclasses.fields(LazyConfig) if f.name != "scorer")  # a scorer is Python
SAMPLE = 1 << 20  # bytes at the end of a weights file that stand for all of it


@dataclass(frozen=True)
class StoredSchedule:
    """A schedule that was found on the disk."""

    path: Path
    settings: Mapping[str, Any]  # fields of `LazyConfig`
    own: bool  # of the user's own calibration, and not of the model's folder
    maps: Path | None = None  # to look ahead with
    fingerprint: str = ""  # of the model that was calibrated

    def applied(self, lazy: LazyConfig, fixed: Collection[str] = ()) -> LazyConfig:
        """`lazy` with the stored fields; those that are `fixed`, or set otherwise than the default, stay."""
        free = {f.name for f in dataclasses.fields(lazy) if getattr(lazy, f.name) == f.default} - set(fixed)
        try:
            return dataclasses.replace(lazy, **{k: v for k, v in self.settings.items() if k in free})
        except ConfigError as error:
            raise ConfigError(f"{error} (in {self.path}; calibrate the model again, or delete the file)") from None


def find_stored(folder: Path) -> StoredSchedule | None:
    """The schedule to use for the model in a folder: the user's calibration, or the one that came with the model."""
    for path, own in ((user_file(folder), True), (folder / BESIDE, False)):
        if path.is_file() and not _is_of_another(path, folder_fingerprint(folder)):
            return _stored(path, own)
    return None


def read_stored(place: Path, folder: Path, adapter: str | None = None) -> StoredSchedule:
    """A calibration that the user names, for the model in a folder.

    Args:
        place: its file, or the folder that it was written to.
        adapter: that the model is used with.

    Raises:
        ConfigError: there is none, or it was made for another model, other weights or another adapter.
    """
    path = place / BESIDE if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(f"schedule: {path} is not there; expected what 'lazymlx calibrate --out' writes")
    if _is_of_another(path, folder_fingerprint(folder, adapter)):
        raise ConfigError(
            f"schedule: {path} was calibrated for another model, other weights or another quantisation than {folder} "
            "has; calibrate this one with 'lazymlx calibrate'"
        )
    return _stored(path, own=True)


def stale(folder: Path) -> Path | None:
    """The user's calibration under this model's name, if it was made for another model."""
    own = user_file(folder)
    return own if own.is_file() and _is_of_another(own, folder_fingerprint(folder)) else None


def _is_of_another(path: Path, model: str) -> bool:
    """A file that a person wrote names no model, and is for the one that it lies beside."""
    return read(path).get("fingerprint", model) != model


def _stored(path: Path, own: bool) -> StoredSchedule:
    record = read(path)
    maps = maps_beside(path) if record.get("maps") else None
    if maps is not None and not maps.is_file():
        raise ConfigError(f"schedule: {path} needs the maps that were written beside it, and {maps} is not there")
    return StoredSchedule(path, _settings(record, path), own, maps, str(record.get("fingerprint", "")))


def maps_beside(path: Path) -> Path:
    """Where the maps of a calibration lie."""
    return path.with_suffix(".maps.safetensors")


def user_file(folder: Path) -> Path:
    """Where the user's calibration of the model in `folder` is kept."""
    return user_folder() / f"{name_of(folder)}.json"


def user_folder() -> Path:
    """Where the user's calibrations are kept."""
    return cache_folder() / "schedules"


def name_of(folder: Path) -> str:
    """What a model is called in a file's name: owner and name on the Hub, or the last two parts of its path."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots":  # of the Hub's cache: models--OWNER--NAME/snapshots/REVISION
        return folder.parent.parent.name.removeprefix("models--")
    return "--".join(folder.parts[1:][-2:]).lstrip(".") or "model"


def folder_fingerprint(folder: Path, adapter: str | None = None) -> str:
    """Changes with a model's configuration, weights or adapter; reads a small part of them."""
    digest = sha256(json.dumps(read(folder / "config.json"), sort_keys=True).encode())
    adapters = [] if adapter is None else sorted(Path(adapter).glob("*.safetensors"))
    for path in [*sorted(folder.glob("model*.safetensors")), *adapters]:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(size - SAMPLE, 0))
            digest.update(f"{path.name} {size}".encode() + file.read())
    return digest.hexdigest()[:32]


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"schedule: {path} is not readable as JSON: {error}; mend it or delete it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"schedule: {path} must hold a JSON object, got {type(content).__name__}")
    return content


def _settings(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if "schedule" not in record:
        raise ConfigError(f"schedule: {path} must name a 'schedule'")
    return {name: record[name] for name in FIELDS if name in record}


def check_writable(path: Path, flag: str) -> None:
    """Refuse a place where no schedule can be written, before one is computed.

    Args:
        flag: what the user gave the path with.

    Raises:
        UsageError: the folder cannot be made or written to, or what is there already is no schedule.
    """
    check_folder(path.parent, flag)
    if path.parent.is_dir():
        check_file(path, flag, lambda there: holds(there, "schedule"))
