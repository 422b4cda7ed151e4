"""At the cuts: who is left behind, who comes back, who goes on. Two bodies, one vocabulary.

`exactly` learns from the device how many tokens were selected: prefill, and the paper's mode. `budgeted` fixes their
number beforehand, so that a decode step never waits. Both go through the same steps at each cut (LazyLLM sec 3.2):

    score       importance of every token of the stage, seen from the query window, or by looking ahead
    select      the best, and the protected ones on top
    come back   of the selected, those not computed behind the cut: their rows leave the aux cache
    go on       these rows run through the stage's layers; a row that has a cut before it waits there again
"""

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Bool, Float, Integer

from ..cache.aux_cache import Moved
from ..cache.conversation import CacheForm, LazyCache, Step, mask_of
from ..nn.backend import ways
from ..nn.compiling import Replay
from ..nn.loop import View
from ..nn.maps import Maps
from ..nn.network import Network
from ..schedule import Cut
from .lookahead import OWN, POOL_AHEAD, FilledTokens, importance_ahead, looking_rows, looks
from .scoring import add_links, importance_at, scoring_of
from .selection import best_waiting, select
from .stages import Seen, run_rising, run_stage

# --- exactly ------------------------------------------------------------------------------------------


def exactly(
    model: Network,
    maps: Maps | None,
    cache: LazyCache,
    step: Step,
    x: Float[mx.array, "1 1 D"],
    queries: Float[mx.array, "1 H W D_h"],
) -> Float[mx.array, "1 1 D"]:
    """A prompt, or a decode step that revives all that was selected: as many rows as it takes.

    How many that are follows from the schedule where a stage is still empty; else the device is asked, once a cut.

    Args:
        maps: to look ahead with, if there are any.
        x: outputs of stage 0; only the last row is used, the others wait already.
    """
    config, first = cache.config, cache.turn.start == 0 and not any(stage.filled for stage in cache.stages[1:])
    asking = mx.arange(step.stop - step.window, step.stop, dtype=mx.int32)
    ahead = maps if maps is not None and looks(cache, maps, step) else None
    safe = cache.protected(step, looking_rows(cache, step) if ahead else 0)
    protected, active, within = mask_of(safe, cache.aux.places), cache.aux.depth > 0, None
    n_active, n_protected, kept = step.stop, sum(b - a for a, b in safe), []
    for number, cut in enumerate(config.cuts, 1):
        stage, selected = cache.stages[number], active
        k = how_many(model, cache, cut, step, n_active - n_protected, n_protected)
        if k < n_active - n_protected:
            if ahead is not None:
                importance = importance_ahead(model, ahead, cache, number, step)
                selected = select(importance, active, protected, k, max(config.pool, POOL_AHEAD), OWN)
            else:
                importance = importance_at(model, cache, number, asking, queries, within)
                if number == 1 and cache.prompt_queries.parts and not step.decode:
                    importance = add_links(model, cache, importance, active & ~protected)
                selected = select(importance, active, protected, k, config.pool)
        n_active = k + n_protected
        positions = _missing(cache, number, step, selected, n_active if first else None)
        n_missing = positions.shape[0]
        rows, slots = cache.aux.come_back(positions, number) if n_missing else (x[:, :0], None)
        active = selected & (cache.aux.depth > number)
        if config.revive == 0 and not first:
            n_active, n_protected = on_host(active, active & protected)
        if step.decode:
            rows, positions = mx.concatenate([rows, x], axis=1), mx.concatenate([positions, asking])
        some = config.attend == "selected" and n_active < stage.filled + positions.shape[0]
        within = active if some else None
        seen = Seen(within, first or n_missing == 0)
        if ahead is not None and config.filled != "choosing":
            seen = seen.beside(FilledTokens(model, ahead, cache, number), looking_rows(cache, step))
        rows, queries = run_rising(model, cache, number, step, rows, positions, seen)
        if slots is not None and number < len(config.cuts):
            cache.aux.leave_again(slots, rows[:, :n_missing])
        x = rows[:, -1:]
        kept.append(n_active)
    if not step.decode:
        cache.turn = cache.turn.with_kept(kept)
        cache.aux.compact()
    return x


def how_many(model: Network, cache: LazyCache, cut: Cut, step: Step, candidates: int, protected: int) -> int:
    """Candidates that a cut lets through, beside the protected tokens."""
    if model.sight is not None and step.stop > model.sight and not step.decode:
        return candidates
    return min(cache.config.let_through(cut, step.stop, protected, rounded=not step.decode) - protected, candidates)


def _missing(
    cache: LazyCache, number: int, step: Step, selected: Bool[mx.array, " P"], count: int | None
) -> Integer[mx.array, " M"]:
    """Selected tokens that wait at cut `number`, in the order of the conversation, and count those that come back.

    Args:
        count: how many they are, if that is known: none of them were there before then.
    """
    came = step.start if step.decode else cache.turn.start  # what is earlier was there before this prompt or token
    place = mx.arange(cache.aux.places)
    missing = selected & (cache.aux.depth == number)
    if cache.config.revive == 0:
        missing = missing & (place >= came)
    if count is None:
        count, old = on_host(missing, missing & (place < came))
        cache.turn = cache.turn.with_revived(old, old * len(cache.stages[number].layers))
    return mx.sort(mx.where(missing, place, cache.aux.places))[:count]


def on_host(*masks: Bool[mx.array, " P"]) -> list[int]:
    """Learn how many positions are in each mask: the one place where an exact step waits for the device."""
    return np.array(mx.stack([mask.sum() for mask in masks])).tolist()


# --- budgeted -----------------------------------------------------------------------------------------


class BudgetedStep(NamedTuple):
    """What a budgeted decode step decides before it looks at an array.

    Attributes:
        form: of the conversation.
        back: tokens that come back at each cut.
        kept: tokens that attention is limited to behind each cut; None if it goes to all that are computed there.
        context: positions that there may be.
    """

    form: CacheForm
    back: tuple[int, ...]
    kept: Sequence[int] | None
    context: int


class NewToken(NamedTuple):
    """The token that a decode step takes in: its row, its position, and its queries where the first cut scores."""

    x: Float[mx.array, "1 1 D"]
    position: Integer[mx.array, " 1"]
    queries: Float[mx.array, "1 H 1 D_h"]


def alone(model: Network, cache: LazyCache, step: Step, x: Float[mx.array, "1 1 D"]) -> Float[mx.array, "1 1 D"]:
    """Decode with nothing to come back: the new token alone."""
    cache.make_room(1)
    position = mx.arange(step.start, step.stop, dtype=mx.int32)
    for number in range(1, len(cache.stages)):
        span = cache.stages[number].append(position, step.stop)
        x, _ = run_stage(model, cache, number, x, View(step.start, None, span))
    return x


def budgeted(
    model: Network, replay: Replay, stretched: bool, cache: LazyCache, step: Step, x: mx.array, queries: mx.array
) -> Float[mx.array, "1 1 D"]:
    """Decode: the new token, and at each cut the best few of the tokens that wait there. Never waits.

    How many come back is known beforehand. From the first cut on shapes stay as they are from step to step, so what
    is done there is traced once and repeated.

    Args:
        replay: of the model's earlier steps.
        stretched: rotations depend on the length of the context.
    """
    config, budget = cache.config, cache.config.revive
    assert budget is not None
    cache.make_room(1 + budget)
    new = mx.arange(step.start, step.stop, dtype=mx.int32)
    protected, back = cache.protected_while_generating(step), cache.coming_back(budget)
    slots = cache.slots_for(back)
    kept = None
    if config.attend == "selected":
        kept = [config.let_through(cut, step.stop, protected=0, rounded=False) for cut in config.cuts]
    context = step.stop if stretched else cache.aux.places  # the latter is the same for many steps
    known = BudgetedStep(cache.form, back, kept, context)
    sizes = context, cache.aux.rows.capacity, *(stage.capacity for stage in cache.stages)
    # a scorer of one's own may look at values
    same = kept is None and not stretched and config.scorer is None
    me: Any = weakref.proxy(model)  # a trace is kept by the model, and must not keep it
    scored = [*scoring_of(model, cache, 0)[1].parts, cache.stages[0].positions]
    given = [x, new, queries], slots, scored, protected, cache.behind
    x, behind = replay(
        partial(behind_cuts, me, known), (known.form, back, sizes, ways()) if same else None, model.layers, *given
    )
    cache.go_on_from(behind)
    cache.came_back(back)
    return x


def behind_cuts(
    model: Network,
    known: BudgetedStep,
    token: list[mx.array],
    slots: list[Integer[mx.array, " _"]],
    scored: list[mx.array],
    protected: Bool[mx.array, " P"],
    behind: list[mx.array],
) -> tuple[Float[mx.array, "1 1 D"], list[mx.array]]:
    """A budgeted decode step from the first cut on: a pure function of arrays.

    Args:
        token: see `NewToken`.
        slots: for the rows of each stage.
        scored: of the layer that scores at the first cut: all keys, and their positions.
        behind: the conversation behind the first cut.

    Returns:
        The row as it leaves the last stage, and the conversation behind the first cut.
    """
    x, new, queries = NewToken(*token)
    cache = LazyCache.of(known.form, behind)
    first, arrays = cache.stages[0], iter(scored)  # of which nothing else is known here
    scoring_of(model, cache, 0)[1].fill(arrays)
    first.positions = next(arrays)
    first.open()
    within, logits, moved = None, None, list[Moved]()
    for number, n in enumerate(known.back, 1):
        importance = importance_at(model, cache, number, new, queries, within, logits)
        stage, depth, pool = cache.stages[number], cache.aux.depth, known.form.config.pool
        active = depth >= number if within is None else within
        rows, positions = x, new
        if n:
            best = best_waiting(importance, active, protected, depth == number, n, pool)
            rows, positions, came_from = with_returning(cache, number, x, new, best, moved)
        if known.kept is not None:
            selected = select(importance, active, protected, known.kept[number - 1], pool)
            within = active & (selected | (depth == number)) & (cache.aux.depth > number)
        span = stage.put(positions, slots[number - 1], known.context)
        view = View(positions, stage.visible(positions, within), span, within)
        rows, scoring = run_stage(model, cache, number, rows, view)
        x, queries = rows[:, :1], scoring.queries[:, :, :1]
        logits = None if scoring.logits is None else scoring.logits[:, :, :1]
        if n and number < len(known.back):
            moved.append(Moved(came_from, rows[:, 1:]))
    for each in moved:  # only now: a buffer that was read from is copied before it is written to
        cache.aux.leave_again(*each)
    return x, cache.behind


def with_returning(
    cache: LazyCache, number: int, x: mx.array, new: mx.array, best: Integer[mx.array, " R"], moved: Sequence[Moved]
) -> tuple[Float[mx.array, "1 L D"], Integer[mx.array, " L"], Integer[mx.array, " R"]]:
    """The new token's row and those that come back at a cut, their positions, and the slots that these came from.

    Args:
        moved: tokens that came from the cut before, and were not put back yet.
    """
    revived, came_from = cache.aux.come_back(best, number, *moved[-1:])
    return mx.concatenate([x, revived], axis=1), mx.concatenate([new, best]), came_from
