"""Which models are on this machine: those in the Hub's cache, and those that came out of packages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CacheNotFound, constants, scan_cache_dir

from ..errors import ConfigError, ModelError
from ..nn.families import family_of
from .depth import check_depth
from .load import checked_config, read_json
from .pretrained import PACKAGES, fetched_folder, is_fetched
from .stored import find_stored


@dataclass(frozen=True)
class FoundModel:
    """One model.

    Attributes:
        name: what `load` takes.
        kind: the architecture, as config.json calls it.
        refusal: why it is not served; None if it is.
        schedule: that is stored for it; None if none is.
    """

    name: str
    nbytes: int
    kind: str
    refusal: str | None
    schedule: str | None


def found_models() -> list[FoundModel]:
    """All of them by name; what else the Hub's cache holds (datasets, single tokenizers) is left out."""
    return sorted(
        (_found(name, folder) for name, folder in (*_of_packages(), *_of_hub()) if (folder / "config.json").exists()),
        key=lambda model: model.name.lower(),
    )


def _of_packages() -> Iterator[tuple[str, Path]]:
    folders = ((name, fetched_folder(name)) for name in PACKAGES)
    return ((name, folder) for name, folder in folders if is_fetched(folder))


def _of_hub() -> Iterator[tuple[str, Path]]:
    """What the main branch was when it was fetched, or else the newest revision that is there."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in repositories:
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
            yield repository.repo_id, newest.snapshot_path


def _found(name: str, folder: Path) -> FoundModel:
    kind, refusal, schedule = "?", None, None
    try:
        kind = str(read_json(folder / "config.json").get("model_type", "?"))
        config = checked_config(folder)
        family_of(config.get("model_type"), config.get("text_config"))
        check_depth(config, folder)
        stored = find_stored(folder)
        schedule = None if stored is None else str(stored.settings["schedule"])
    except (ModelError, ConfigError) as error:
        refusal = str(error)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return FoundModel(name, size, kind, refusal, schedule)
