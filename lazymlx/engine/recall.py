"""Recalling: while an answer is given, tokens that were left behind are seen by their filled keys, and come back once
the answer attends to them.

The look of a prompt's last rows tells what the answer begins with. What it needs later shows when it is attended to,
in the layers behind the cuts, and there filled keys are enough to be found by. What follows in the text comes back as
well, since answers that copy go on with it. Not in the paper, where importance is that of the layer before a cut.
"""

import weakref
from functools import partial, reduce
from typing import Any, NamedTuple

import mlx.core as mx
from jaxtyping import Bool, Float, Integer

from ..cache.aux_cache import Moved
from ..cache.conversation import CacheForm, LazyCache, Step
from ..cache.recall import FilledStage, Recall
from ..cache.rows import STEP
from ..cache.stage import NOWHERE, KeysValues, Span
from ..config import GROUP_SIZES
from ..nn.attend import Parts, Shown, concatenated
from ..nn.attention import Rows
from ..nn.backend import ways
from ..nn.compiling import Replay, compiled
from ..nn.loop import Others, View, run_layers
from ..nn.maps import Maps
from ..nn.network import Network
from .cuts import with_returning
from .lookahead import FilledTokens, counts
from .scoring import over_ranks
from .selection import best_waiting

FOLLOWING = (1, 2, 4, 8)  # what is attended to counts as much for the tokens behind it, up to the sum of these
FADING = 0.5  # what was attended to a token ago counts so much


def recalls(cache: LazyCache, maps: Maps) -> bool:
    """Whether answers see filled keys."""
    return maps.serve(cache.config) and cache.config.filled == "kept" and cache.config.revive is not None


def rests(cache: LazyCache, step: Step) -> bool:
    """Whether nothing comes back at this step: nor at the first one, which knows of nothing yet."""
    return cache.config.revive == 0 or (step.start - cache.turn.end + 1) % cache.config.revive_every > 0


def recall_of(model: Network, maps: Maps, cache: LazyCache) -> Recall:
    """All tokens that wait, filled in the layers behind their cuts. Made when the first step needs it: lazily, in the
    order in which the layers are computed."""
    filled = [FilledTokens(model, maps, cache, number) for number in range(1, len(cache.stages))]
    stages = tuple(_stage(each, range(*cache.layers_of(number))) for number, each in enumerate(filled, 1))
    return Recall(stages, mx.zeros((cache.aux.places,)))


def _stage(filled: FilledTokens, layers: range) -> FilledStage:
    """In as many slots as buffers grow by, so that the shapes of few answers differ."""
    if not filled:
        return FilledStage(mx.zeros((0,), mx.int32), ())
    positions = mx.concatenate(filled.positions)
    empty = -len(positions) % STEP
    positions = mx.pad(positions, [(0, empty)], constant_values=NOWHERE)
    return FilledStage(positions, tuple(_packed(filled.of(layer), empty) for layer in layers))


def _packed(parts: Parts, empty: int) -> KeysValues:
    """Keys and values, in few bits where heads fall into groups."""
    keys, values = concatenated(parts)
    fitting = [size for size in GROUP_SIZES if keys.shape[-1] % size == 0 and values.shape[-1] % size == 0]
    held, slots, bits = KeysValues(), keys.shape[2], ways().recall_bits
    if fitting and bits is not None:
        held.pack(bits, 64 if 64 in fitting else fitting[0])
    held.append(keys, values, Span(0, slots, slots))
    held.keys, held.values = held.keys.padded(empty), held.values.padded(empty)
    return held


class RecallingStep(NamedTuple):
    """What a step that recalls decides before it looks at an array.

    Attributes:
        form: of the conversation.
        recall: the form of what the answer knows.
        back: tokens that come back at each cut.
        context: positions that there may be.
    """

    form: CacheForm
    recall: Recall
    back: tuple[int, ...]
    context: int


def recalling(
    model: Network,
    replay: Replay,
    stretched: bool,
    maps: Maps,
    cache: LazyCache,
    step: Step,
    x: Float[mx.array, "1 1 D"],
) -> Float[mx.array, "1 1 D"]:
    """Decode: the new token, beside filled tokens, and those that come back. Never waits, see `cuts.budgeted`."""
    recall = (cache.recall or recall_of(model, maps, cache)).for_places(cache.aux.places)
    back = cache.coming_back(0 if rests(cache, step) else cache.config.revive or 0)
    cache.make_room(1 + max(back))
    new, slots = mx.arange(step.start, step.stop, dtype=mx.int32), cache.slots_for(back)
    context = step.stop if stretched else cache.aux.places
    known = RecallingStep(cache.form, recall.like(), back, context)
    sizes = recall.sizes, context, cache.aux.rows.capacity, *(stage.capacity for stage in cache.stages[1:])
    me: Any = weakref.proxy(model)  # a trace is kept by the model, and must not keep it
    given = [x, new], slots, recall.arrays, cache.protected_while_generating(step), cache.behind
    key = None if stretched else (known.form, back, sizes, ways())
    x, behind, paid = replay(partial(_behind_cuts, me, known), key, model.layers, *given)
    cache.go_on_from(behind)
    cache.came_back(back)
    cache.recall = Recall(recall.stages, paid)
    return x


def _behind_cuts(
    model: Network,
    known: RecallingStep,
    token: list[mx.array],
    slots: list[Integer[mx.array, " _"]],
    recalled: list[mx.array],
    protected: Bool[mx.array, " P"],
    behind: list[mx.array],
) -> tuple[Float[mx.array, "1 1 D"], list[mx.array], Float[mx.array, " P"]]:
    """The step from the first cut on: a pure function of arrays.

    Args:
        token: its row and its position.
        slots: for the rows of each stage.
        recalled: the arrays of what the answer knows.
        behind: the conversation behind the first cut.

    Returns:
        The row as it leaves the last stage, the conversation behind the first cut, and what was attended to so far.
    """
    (x, new), cache, recall = token, LazyCache.of(known.form, behind), known.recall.filled_with(recalled)
    wanted, paid, moved = followed(recall.paid, protected), FADING * recall.paid, list[Moved]()
    for number, n in enumerate(known.back, 1):
        depth, rows, positions = cache.aux.depth, x, new
        if n:
            best = best_waiting(wanted, depth >= number, protected, depth == number, n)
            rows, positions, came_from = with_returning(cache, number, x, new, best, moved)
        span = cache.stages[number].put(positions, slots[number - 1], known.context)
        rows, seen = run_recalling(model, cache, recall, number, rows, positions, span)
        x, paid = rows[:, :1], paid + seen
        if n and number < len(known.back):
            moved.append(Moved(came_from, rows[:, 1:]))
    for each in moved:  # only now: a buffer that was read from is copied before it is written to
        cache.aux.leave_again(*each)
    return x, cache.behind, paid


def run_recalling(
    model: Network,
    cache: LazyCache,
    recall: Recall,
    number: int,
    x: Float[mx.array, "1 L D"],
    positions: Integer[mx.array, " L"],
    span: Span,
) -> tuple[Float[mx.array, "1 L D"], Float[mx.array, " P"]]:
    """Run an answer's new token, and behind it those that come back, through a stage.

    Returns:
        The stage's outputs, and what the new token attended to, by position: of each layer the most that any head
        paid, added up as where a prompt looks ahead.
    """
    stage, filled, (start, stop) = cache.stages[number], recall.stages[number - 1], cache.layers_of(number)
    waiting = _still_waiting(cache, number, filled)
    shown = Shown.beside(positions, waiting, stage.visible(positions, None))
    view = View(positions, None, span, others=Others(waiting, filled.of, shown))
    layers = range(stop - start)
    x, rows = run_layers(model.layers[start:stop], model.windows[start:stop], x, view, stage, returned=layers)
    most = [_most_paid(model, rows[index]) for index in layers if counts(model, start + index)]
    if not most:
        return x, mx.zeros((cache.aux.places,))
    paid, F = reduce(mx.add, most), len(waiting)
    by_position = stage.by_position(paid[F:], cache.aux.places)
    if F:
        to_filled = mx.zeros_like(by_position)
        to_filled[mx.minimum(filled.positions, cache.aux.places - 1)] = paid[:F]
        by_position = by_position + to_filled
    return x, by_position


def _still_waiting(cache: LazyCache, number: int, filled: FilledStage) -> Integer[mx.array, " F"]:
    """Positions of the filled tokens; of those that came back since, one that nothing sees."""
    depth = cache.aux.depth[mx.minimum(filled.positions, cache.aux.places - 1)]
    return mx.where((depth > 0) & (depth <= number), filled.positions, NOWHERE)


def _most_paid(model: Network, rows: Rows) -> Float[mx.array, " S"]:
    """The most that any head of the first row pays to each key."""
    return over_ranks(model, rows.probabilities[0, :, 0].max(axis=0).astype(mx.float32), "max")


def followed(paid: Float[mx.array, " P"], protected: Bool[mx.array, " P"]) -> Float[mx.array, " P"]:
    """Importance of the tokens for those that come back: what they, or a token a little before them, were paid."""
    return compiled(_followed)(paid, protected)


def _followed(paid: Float[mx.array, " P"], protected: Bool[mx.array, " P"]) -> Float[mx.array, " P"]:
    each = mx.where(protected, 0.0, paid)
    for places in FOLLOWING:
        each = mx.maximum(each, mx.pad(each[:-places], [(places, 0)]))
    return each
