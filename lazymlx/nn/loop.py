"""The one loop over layers: any rows, at any positions, with or without earlier keys and values.

The dense model, a stage of the engine, calibration and the rivals of the evaluation all run layers here.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Bool, Float, Integer

from ..cache.masks import Mask, causal
from ..cache.stage import Span, StageCache
from .attend import Parts, Shown
from .attention import Beside, Rows, last_output
from .rope import Positions
from .windows import Windows

IN_HAND = 8192  # rows of layers of a prompt that the device may have before it: they are the peak of its memory
A_ROW = 4  # tokens that rows see beside their stage, and that take as much memory in a layer as one row
FEWEST_IN_HAND = 2  # layers, however many rows: one is prepared while the device computes the other
IN_HAND_CPU = 1024  # where preparing takes no time beside computing, and who waits wants to see each layer

OnLayer = Callable[[int], None]
"""Called with the number of layers that rows have been computed in."""


@dataclass(frozen=True)
class Others:
    """Tokens that the last rows may see beside those of their stage.

    Attributes:
        positions: of the tokens.
        of: from the index of a layer to their keys, rotated, and values, in parts: `(1, H_kv, F, D_h)` together.
        shown: what each of these rows sees of the tokens, and then of the stage, where a layer sees everything.
    """

    positions: Integer[mx.array, " F"]
    of: Callable[[int], Parts]
    shown: Shown


@dataclass(frozen=True)
class View:
    """Where rows stand, and what they may see.

    Attributes:
        positions: of the rows.
        mask: what they may see of the stage where a layer sees everything.
        span: the slots of the rows.
        within: the positions that they may see; layers with a window make their mask of it. None for all.
        others: that the last of the rows may see as well.
    """

    positions: Positions
    mask: Mask
    span: Span
    within: Bool[mx.array, " P"] | None = None
    others: Others | None = None


class Through(NamedTuple):
    """What rows see in the layers of a window: the slot from which on to look, and the masks of a `View`."""

    first: int
    mask: Mask
    beside: Shown | None


def run_layers(
    layers: Sequence[nn.Module],
    windows: Windows,
    x: Float[mx.array, "B L D"],
    view: View,
    stage: StageCache | None = None,
    *,
    returned: Collection[int] = (),
    last_only: bool = False,
    at_once: OnLayer | None = None,
) -> tuple[Float[mx.array, "B T D"], dict[int, Rows]]:
    """Run rows through layers.

    Args:
        windows: of these layers.
        stage: holds the keys and values of earlier rows, and takes in those of these rows; None if there are none.
        returned: indices of the layers whose rows, with their queries, are returned.
        last_only: of the last layer, only the last row's output is wanted.
        at_once: let the device begin with a layer while the next one is prepared, up to `IN_HAND` rows; called with
            how many layers are done.

    Returns:
        The last layer's outputs, and the rows as they went through these layers.
    """
    others = view.others
    views: dict[int | None, Through] = {None: Through(0, view.mask, others and others.shown)}
    begun, rows_of = deque[mx.array](), dict[int, Rows]()
    most = layers_in_hand(x.shape[1], 0 if others is None else len(others.positions))
    if at_once is not None:
        mx.async_eval(x)
    for index, (layer, window) in enumerate(zip(layers, windows, strict=True)):
        if window not in views:
            assert window is not None
            views[window] = views[None] if view.span.context <= window else _through(window, x, view, stage)
        first, seen, also = views[window]
        beside = None if others is None or also is None else Beside(others.of(index), also)
        rows = Rows(view.positions, None if stage is None else stage.layers[index], view.span, first, beside)
        if last_only and index == len(layers) - 1 and x.shape[1] > 1:
            x, rows = last_output(layer, x, seen, rows)
        else:
            x = layer(x, mask=seen, cache=rows)
        if index in returned:
            rows_of[index] = rows
        if at_once is not None:
            mx.async_eval(x)
            begun.append(x)
            if len(begun) > most:
                mx.eval(begun.popleft())
                at_once(index + 1 - most)
    return x, rows_of


def layers_in_hand(rows: int, others: int) -> int:
    """How many layers of these rows, and of tokens beside them, the device may have before it."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return max((IN_HAND_CPU if on_cpu else IN_HAND) // (rows + others // A_ROW), FEWEST_IN_HAND)


def _through(window: int, x: mx.array, view: View, stage: StageCache | None) -> Through:
    """What the rows see through a window."""
    positions, within, others = view.positions, view.within, view.others
    at = positions if isinstance(positions, mx.array) else mx.arange(positions, positions + x.shape[1])
    if others is None:
        first, mask = (0, causal(at, at, window)) if stage is None else stage.through(window, at, within)
        return Through(first, mask, None)
    own = causal(at, at, window) if stage is None else stage.visible(at, within, window)
    last = others.shown.mask.shape[0]
    return Through(0, own, Shown.beside(at[-last:], others.positions, own[-last:], window))
