"""Whether all ranks are about to load the same model: compared before any weight is read."""

from hashlib import sha256
from pathlib import Path

from ..errors import ModelError
from ..ranks.group import Ranks
from .stored import find_stored, folder_fingerprint


def check_alike(ranks: Ranks, folder: Path, adapter: str | None) -> None:
    """Compare the ranks.

    Raises:
        ModelError: they differ; the message says where and in what. Or an adapter was given, which cannot be split.
    """
    if ranks.size == 1:
        return
    if adapter is not None:
        raise ModelError("adapter: it cannot be split over ranks; put it into the weights with mlx_lm.fuse")
    ranks.same("model", _facts(folder), ModelError)


def _facts(folder: Path) -> dict[str, str]:
    """What must be the same everywhere, by name."""
    stored = find_stored(folder)
    return {
        "weights": folder_fingerprint(folder)[:8],
        "tokenizer": _digest(folder / "tokenizer.json"),
        "calibration": "none" if stored is None else _digest(stored.path),
    }


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else "none"
