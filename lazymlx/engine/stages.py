"""Rows through a stage: all at once, or a prompt's in parts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import Mask
from ..cache.stage import Span, StageCache
from ..nn.attend import Shown
from ..nn.attention import Rows
from ..nn.loop import Others, View, run_layers
from ..nn.network import Network
from ..nn.windows import scoring_layer
from .lookahead import FilledTokens


def run_stage(
    model: Network,
    cache: LazyCache,
    number: int,
    x: Float[mx.array, "1 L D"],
    view: View,
    *,
    last_only: bool = False,
    at_once: Callable[[int], None] | None = None,
) -> tuple[Float[mx.array, "1 T D"], Rows]:
    """Run rows through the layers of a stage, see `run_layers`.

    Args:
        at_once: called with what is done, in rows: half the layers are half the rows.

    Returns:
        The stage's outputs, and the rows as they went through the layer that scores at the next cut.
    """
    start, stop = cache.layers_of(number)
    scoring = scoring_layer(model.windows, start, stop) - start
    L, layers = x.shape[1], stop - start
    x, rows = run_layers(
        model.layers[start:stop],
        model.windows[start:stop],
        x,
        view,
        cache.stages[number],
        returned=(scoring,),
        last_only=last_only,
        at_once=None if at_once is None else lambda done: at_once(L * done // layers),
    )
    return x, rows[scoring]


@dataclass(frozen=True)
class Seen:
    """What rows at rising positions may see in a stage.

    The rows that looked ahead see filled keys here too: they are few, and are where an answer begins. Those before
    them see what was computed alone: a mask over filled keys would cost them as much again as their attention.

    Attributes:
        within: the positions; None if that is all that the stage holds.
        ordered: no row is earlier than one that the stage holds, so that the slots are in the order of positions.
        filled: tokens that wait, and that the last rows see as well; then these see all that the stage holds.
        asking: how many rows these are.
    """

    within: Bool[mx.array, " P"] | None
    ordered: bool
    filled: FilledTokens | None = None
    asking: int = 0

    def beside(self, filled: FilledTokens, rows: int) -> "Seen":
        """The same, and of the last `rows` the filled tokens as well, if there are any."""
        return replace(self, filled=filled, asking=rows) if filled else self

    def view(self, stage: StageCache, positions: Integer[mx.array, " L"], span: Span, later: int) -> View:
        """Of rows that the stage has just made room for, with `later` more behind them."""
        mask, asking = self._mask(stage, positions), min(self.asking - later, len(positions))
        if self.filled is None or asking <= 0:
            return View(positions, mask, span, self.within)
        waiting, last = mx.concatenate(self.filled.positions), positions[-asking:]
        shown = Shown.beside(last, waiting, stage.visible(last, None))
        return View(positions, mask, span, others=Others(waiting, self.filled.of_stage, shown))

    def _mask(self, stage: StageCache, positions: Integer[mx.array, " L"]) -> Mask:
        if self.within is not None or not self.ordered:
            return stage.visible(positions, self.within)
        return "causal" if len(positions) > 1 else None


def run_rising(
    model: Network,
    cache: LazyCache,
    number: int,
    step: Step,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    seen: Seen,
) -> tuple[Float[mx.array, "1 T D"], Float[mx.array, "1 H W D_h"]]:
    """Run rows at rising positions through a stage, in equal parts of at most `step.rows_at_a_time`.

    Returns its outputs (in the last stage only the last one of each part), and the newest queries.
    """
    stage, L, outs, queries = cache.stages[number], x.shape[1], [], None
    last_only = number == len(cache.config.cuts)
    for chunk in parts_of(L, step.rows_at_a_time):
        start, rows, at, later = chunk.start, x[:, chunk], positions[chunk], L - chunk.stop
        span = stage.append(at, step.stop, ahead=later)
        view = seen.view(stage, at, span, later)

        def report(done: int, before: int = start) -> None:
            step.report(number, before + done, L)

        out, scoring = run_stage(model, cache, number, rows, view, last_only=last_only, at_once=report)
        # the device works while the next chunk is prepared, but never has more than two of them in hand
        mx.async_eval(out)
        if outs:
            mx.eval(outs[-1])
            step.report(number, start, L)
        outs.append(out)
        queries = last_rows(queries, scoring.queries, step.window)
    assert queries is not None
    return mx.concatenate(outs, axis=1), queries


def parts_of(L: int, most: int) -> list[slice]:
    """Equal parts of `L` rows, of at most so many."""
    part = -(-L // -(-L // most))
    return [slice(start, min(start + part, L)) for start in range(0, L, part)]


def last_rows(
    before: Float[mx.array, "1 H W D_h"] | None, queries: Float[mx.array, "1 H L D_h"], window: int
) -> Float[mx.array, "1 H T D_h"]:
    """The newest `window` queries of two runs of them."""
    if before is not None and queries.shape[2] < window:
        queries = mx.concatenate([before, queries], axis=2)
    return queries[:, :, -window:]
