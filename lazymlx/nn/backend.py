"""How few rows attend, where backends differ: chosen here, and nowhere else.

CUDA's fused attention is planned anew for each shape of a mask, which takes longer than a decode step (log of
2026-11-25, "one H200, CUDA backend"), so few rows go in split products there. Metal's takes up to eight rows with a
mask as they are, and has no split over keys in a product of rows with values; of packed keys its matrix-vector kernels
take the rows of one head, not those of all heads that share the keys. On a CPU nothing of that matters, and both ways
give the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import mlx.core as mx

FUSED_HEADS = (64, 80, 96, 128)  # head sizes for which a GPU's fused attention of many rows never holds all scores
FEW_ROWS_HEADS = (64, 96, 128, 256)  # head sizes that Metal's fused attention of few rows serves
FEW_ROWS_TOGETHER = 32  # and how many rows the heads that share keys may have together


@dataclass(frozen=True)
class Ways:
    """How few rows attend.

    Attributes:
        fused: with a mask, by MLX's fused attention, where that serves them.
        grouped: to packed keys and values, with the rows of all heads that share these in one product.
        doubled: a product of one row with all keys is one of two, which CUDA reads keys faster for.
        additive: masks are numbers that are added, where fused attention takes one.
        recall_bits: in which an answer keeps predicted keys and values; None as they are, on a CPU, where unpacking
            takes longer than reading.
        multiplied: these are multiplied as they are packed. CUDA compiles such a product for minutes when it first
            meets its shapes, and so unpacks.
    """

    fused: bool
    grouped: bool
    doubled: bool
    additive: bool
    recall_bits: int | None
    multiplied: bool


SPLIT = Ways(fused=False, grouped=True, doubled=True, additive=True, recall_bits=4, multiplied=False)  # CUDA
FUSED = Ways(fused=True, grouped=False, doubled=False, additive=False, recall_bits=4, multiplied=True)  # Metal
PLAIN = replace(SPLIT, recall_bits=None)  # a CPU

_given: ContextVar[Ways | None] = ContextVar("ways", default=None)


def ways() -> Ways:
    """Those of the backend, or those that are being tried."""
    given = _given.get()
    if given is not None:
        return given
    if mx.default_device() == mx.Device(mx.cpu):
        return PLAIN
    return FUSED if mx.metal.is_available() else SPLIT


@contextmanager
def trying(given: Ways) -> Iterator[None]:
    """Have it another way in here, in this thread: to compare, and for tests."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


def serves_few(rows: int, heads: int, kv_heads: int, head_size: int) -> bool:
    """Whether Metal's fused attention takes few rows with a mask."""
    return head_size in FEW_ROWS_HEADS and rows * (heads // kv_heads) <= FEW_ROWS_TOGETHER
