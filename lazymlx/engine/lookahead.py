"""Looking ahead: the question runs through the layers behind a cut before anything else does, to learn what it needs.

The tokens that wait have no keys and values there yet, so these are predicted from their hidden states at the cut by
linear maps (`nn.maps`): they are *filled*. The last rows of the prompt then attend to filled keys, and to exact ones
where there are some, and what they attend to is the importance of the cut. Filled keys are made when a layer needs
them and dropped behind it; an exact key is never replaced by a filled one. Not in the paper.
"""

import mlx.core as mx
from jaxtyping import Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import causal
from ..cache.rows import unpacked
from ..cache.stage import KVPool, Span
from ..nn.loop import Others, View, run_layers
from ..nn.maps import CutMap, Maps
from ..nn.network import Network
from .scoring import over_ranks
from .selection import attention


def looks(cache: LazyCache, maps: Maps, step: Step) -> bool:
    """Whether a prompt's importance comes from looking ahead."""
    return not step.decode and maps.serve(cache.config)


def looking_rows(cache: LazyCache, step: Step) -> int:
    """How many of the last tokens look ahead: new ones alone, which wait at the first cut."""
    return min(cache.config.lookahead, step.stop - cache.turn.queries_start)


class Filled:
    """The tokens that wait at the cuts up to a stage.

    Args:
        number: of the stage.
        looking: the cut at which some look ahead, and how many: the newest ones there are left out.
    """

    def __init__(self, model: Network, maps: Maps, cache: LazyCache, number: int, looking: tuple[int, int] = (0, 0)):
        self.model, self.context = model, cache.offset
        self.parts: list[tuple[CutMap, mx.array, mx.array]] = []
        for at, cut in enumerate(cache.config.cuts[:number], 1):
            positions = waiting_at(cache, at)
            positions = positions[: len(positions) - looking[1]] if at == looking[0] else positions
            if len(positions):
                rows = maps.cuts[cut.layer].scaled(cache.aux.rows.at(cache.aux.slots[positions])[None])
                self.parts.append((maps.cuts[cut.layer], positions, rows))

    @property
    def positions(self) -> list[Integer[mx.array, " F"]]:
        return [positions for _, positions, _ in self.parts]

    def of(self, layer: int) -> list[tuple[Float[mx.array, "1 H_kv F D_h"], Float[mx.array, "1 H_kv F D_h"]]]:
        """Keys, rotated, and values in a layer of the stage or behind it."""
        place = self.model.family.attention_of(self.model.layers[layer]).placed
        predicted = ((maps.of_scaled(layer, rows), positions) for maps, positions, rows in self.parts)
        return [(place(keys, positions, self.context), values) for (keys, values), positions in predicted]

    def beside(self, start: int) -> Others | None:
        """For rows that run through the layers from `start` on; None if nobody waits."""
        if not self.parts:
            return None
        return Others(mx.concatenate(self.positions), lambda index: _joined(self.of(start + index)))


def importance_ahead(model: Network, maps: Maps, cache: LazyCache, number: int, step: Step) -> Float[mx.array, " P"]:
    """Importance at a cut: what the last `window` rows attend to in all layers behind it that see everything."""
    count = looking_rows(cache, step)
    at = mx.arange(step.stop - count, step.stop, dtype=mx.int32)
    x = cache.aux.rows.at(cache.aux.slots[at])[None]
    importance = mx.zeros((cache.aux.places,))
    for later in range(number, len(cache.stages)):
        x, seen = _look(model, maps, cache, number, later, x, at, step.window)
        importance = importance + seen
    return importance


def _look(
    model: Network, maps: Maps, cache: LazyCache, number: int, later: int, x: mx.array, at: mx.array, window: int
) -> tuple[Float[mx.array, "1 L D"], Float[mx.array, " P"]]:
    """Through the layers of one stage: the rows' outputs, and what they attend to, by position."""
    stage, (start, stop) = cache.stages[later], cache.layers_of(later)
    filled = Filled(model, maps, cache, later, looking=(number, len(at)))
    positions = mx.concatenate([*filled.positions, stage.positions[: stage.filled]])
    seen = mx.concatenate([positions, at])
    mask, paid = causal(at, seen), mx.zeros(seen.shape)
    for layer in range(start, stop):
        pool = stage.pools[layer - start]
        keys, values = _joined([*filled.of(layer), *_exact(pool, stage.filled)])
        others = Others(positions, lambda _, pair=(keys, values): pair)
        view = View(at, mask, Span(context=cache.offset), others=others)
        one = slice(layer, layer + 1)
        x, rows = run_layers(model.layers[one], model.windows[one], x, view, returned=(0,))
        if model.windows[layer] is None or model.sight is not None:
            own = model.family.attention_of(model.layers[layer])
            keys = mx.concatenate([keys, own.keys_of(rows[0])], axis=2)
            queries = rows[0].queries[0, :, -window:] * own.scale
            each = attention(queries, keys[0], mask[-window:], own.softcap, own.sinks).mean(axis=1)
            reduce = cache.config.reduce
            of_heads = each.max(axis=0) if reduce == "max" else each.mean(axis=0)
            paid = paid + over_ranks(model, of_heads, reduce)
        mx.eval(x, paid)  # the filled keys of one layer at a time
    by_position = mx.zeros((cache.aux.places,))
    by_position[seen] = paid
    return x, by_position


def _exact(pool: KVPool, filled: int) -> list[tuple[mx.array, mx.array]]:
    """Keys and values that were computed."""
    if not filled:
        return []
    keys, values = pool.read(0, filled)
    return [(unpacked(keys), unpacked(values))]


def waiting_at(cache: LazyCache, cut: int) -> Integer[mx.array, " F"]:
    """Positions of the tokens that wait at a cut, rising."""
    place, waits = mx.arange(cache.aux.places), cache.aux.depth == cut
    return mx.sort(mx.where(waits, place, cache.aux.places))[: cache.aux.waiting_at[cut - 1]]


def _joined(pairs: list[tuple[mx.array, mx.array]]) -> tuple[mx.array, mx.array]:
    return mx.concatenate([keys for keys, _ in pairs], axis=2), mx.concatenate([values for _, values in pairs], axis=2)
