"""`Disk`: conversations for which there was no place in memory, each a saved document in a folder.

They outlive the server. A file that cannot be written or read costs time, and nothing else.
"""

import hashlib
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
from jaxtyping import Int32

from ..cache.conversation import LazyCache
from ..engine.model import Model
from ..errors import DocumentError
from ..sealed import read_header
from ..session.saved import FORMAT, load_document, model_fingerprint, save_document
from ..session.transcript import Transcript

SUFFIX = ".lazymlx"


class Disk:
    """A folder of conversations of one model.

    Args:
        most: to keep; those used longest ago are removed.
    """

    def __init__(self, folder: Path, model: Model, most: int):
        self._folder, self._model, self._most = folder, model, most
        folder.mkdir(parents=True, exist_ok=True)
        self._tokens = {path: tokens for path in self._paths() if (tokens := _tokens_of(path, model)) is not None}

    def keep(self, cache: LazyCache, tokens: Int32[np.ndarray, " N"]) -> None:
        """Write a conversation; earlier states of it are removed."""
        path = self._folder / f"{hashlib.sha256(tokens.tobytes()).hexdigest()[:32]}{SUFFIX}"
        if path in self._tokens:
            return
        try:
            save_document(path, self._model, cache, tokens.tolist(), Transcript(), {})
        except DocumentError:
            return
        for other, held in list(self._tokens.items()):
            if len(held) <= len(tokens) and (held == tokens[: len(held)]).all():
                self._remove(other)
        self._tokens[path] = tokens
        for oldest in self._paths()[: -self._most]:
            self._remove(oldest)

    def find(self, usable: Int32[np.ndarray, " N"]) -> tuple[Path | None, int]:
        """The file that has most of these tokens in common, and how many."""
        shared = {path: common(held, usable) for path, held in self._tokens.items()}
        best = max(shared, key=lambda path: shared[path], default=None)
        return best, 0 if best is None else shared[best]

    def read(self, path: Path) -> tuple[LazyCache, Int32[np.ndarray, " N"]] | None:
        """What a file holds; None if it is damaged, and then it is removed."""
        try:
            cache, tokens, _ = load_document(path, self._model)
            os.utime(path)
        except (DocumentError, OSError):
            self._remove(path)
            return None
        return cache, np.array(tokens, np.int32)

    def _paths(self) -> list[Path]:
        """The one used longest ago first."""
        return sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._tokens.pop(path, None)


def _tokens_of(path: Path, model: Model) -> Int32[np.ndarray, " N"] | None:
    """The tokens in a file, of which nothing else is read; None if it is another model's, or none that can be read."""
    try:
        if read_header(path, FORMAT).get("model") != model_fingerprint(model):
            return None
        arrays = mx.load(str(path), format="safetensors")
    except (DocumentError, RuntimeError):
        return None
    assert isinstance(arrays, dict)
    return np.array(arrays["tokens"]) if "tokens" in arrays else None


def common(one: Int32[np.ndarray, " N"], other: Int32[np.ndarray, " M"]) -> int:
    """How many tokens two runs begin with in common."""
    n = min(len(one), len(other))
    differs = one[:n] != other[:n]
    return int(differs.argmax()) if differs.any() else n
