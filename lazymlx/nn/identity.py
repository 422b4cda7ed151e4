"""What a model is known by: the names, types, shapes and first values of its weights, however many ranks hold them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

SAMPLE = 16  # values of each weight


class Known(NamedTuple):
    """What a weight is known by."""

    name: str
    kind: str
    values: bytes


def known(weights: Iterable[tuple[str, mx.array]]) -> Iterator[Known]:
    """Of each of these weights, which are read for it."""
    for name, w in weights:
        yield Known(name, f"{w.dtype} {w.shape}", np.array(w.reshape(-1)[:SAMPLE].view(mx.uint8)).tobytes())


def weights_of(parameters: object) -> list[tuple[str, mx.array]]:
    """The weights in a tree of parameters, by name."""
    return [(name, w) for name, w in tree_flatten(parameters) if isinstance(w, mx.array)]
