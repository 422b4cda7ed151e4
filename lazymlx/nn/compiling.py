"""Chains of operations as compiled functions, and when they must be compiled anew.

MLX traces a function once a combination of shapes, and from then on repeats what it did to arrays. Whatever else the
function read is in the trace as it was: other arrays, such as weights, and all that Python decided.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import mlx.core as mx


def compiles() -> bool:
    """Whether compiling pays. On a CPU it takes longer than it saves."""
    return mx.default_device() == mx.Device(mx.gpu)


def compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A chain of small operations as a few kernels."""
    return _compiled(function) if compiles() else function


@cache
def _compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    return mx.compile(function)


class Replay:
    """A function of arrays that reads a model's parts too: traced once, and again when one of those was replaced.

    Only the newest trace is kept. A part that is written to in its place, rather than replaced, goes unnoticed.
    """

    def __init__(self) -> None:
        # one value, so that threads that take turns never call one's trace with another's key
        self._newest: tuple[Callable[..., Any], object, list[tuple[Any, Any, Any]]] | None = None

    def __call__(self, function: Callable[..., Any], key: object, parts: Any, *arrays: Any) -> Any:
        """Call a function, or repeat what it did.

        Args:
            key: all that the function decides on beside the arrays; None if it cannot be repeated.
            parts: modules, or containers of them, that hold what else it reads.
            arrays: its arguments: arrays, or lists of them.
        """
        if key is None or not compiles():
            return function(*arrays)
        newest = self._newest
        if newest is None or key != newest[1] or not _unchanged(newest[2]):
            self._newest = newest = mx.compile(function), key, list(_entries(parts))
        return newest[0](*arrays)


def _entries(container: Any) -> Iterator[tuple[Any, Any, Any]]:
    """All arrays and modules in a tree of modules, each with what holds it and its name there."""
    for name, part in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(part, (mx.array, dict, list, tuple)):
            yield container, name, part
        if isinstance(part, (dict, list, tuple)):
            yield from _entries(part)


def _unchanged(entries: list[tuple[Any, Any, Any]]) -> bool:
    try:
        return all(container[name] is part for container, name, part in entries)
    except (KeyError, IndexError):  # a part that was taken out
        return False
