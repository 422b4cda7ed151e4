"""Looking ahead: the question runs through layers behind a cut before anything else does, to learn what it needs.

The tokens that wait have no keys and values there yet, so these are predicted from their hidden states at the cut by
linear maps (`nn.maps`): they are *filled*. The last rows of the prompt then attend to filled keys, and to exact ones
where there are some, and what they attend to is the importance of the cut. Filled keys are made when a layer needs
them and dropped behind it (an answer has its own, see `recall`); an exact key is never replaced by a filled one. Not in
the paper.
"""

from collections import deque

import mlx.core as mx
from jaxtyping import Float, Integer

from ..cache.conversation import LazyCache, Step
from ..cache.masks import causal
from ..cache.stage import KeysValues, Span
from ..nn.attend import Parts, Shown
from ..nn.loop import Others, View, layers_in_hand, run_layers
from ..nn.maps import CutMap, Maps
from ..nn.network import Network
from ..nn.windows import looked_through
from .scoring import over_ranks

# Over so many neighbours importance is averaged. Wider than where nothing looks ahead, since an answer that is a string
# of its own, such as a hash, is attended to where it begins, and is needed to its end. Each one's own counts once more.
POOL_AHEAD, OWN = 63, 1 / 63


def looks(cache: LazyCache, maps: Maps, step: Step) -> bool:
    """Whether a prompt's importance comes from looking ahead."""
    return not step.decode and maps.serve(cache.config)


def looking_rows(cache: LazyCache, step: Step) -> int:
    """How many of the last tokens look ahead: new ones alone, which wait at the first cut."""
    return min(cache.config.lookahead, step.stop - cache.turn.queries_start)


class FilledTokens:
    """The tokens that wait at the cuts up to a stage.

    Args:
        number: of the stage.
        looking: the cut at which some look ahead, and how many: the newest ones there are left out.
    """

    def __init__(self, model: Network, maps: Maps, cache: LazyCache, number: int, looking: tuple[int, int] = (0, 0)):
        self.model, self.number, self.context = model, number, cache.offset
        self.first, _ = cache.layers_of(number)
        self.parts: list[tuple[CutMap, mx.array, mx.array]] = []
        for at, cut in enumerate(cache.config.cuts[:number], 1):
            positions = waiting_at(cache, at)
            positions = positions[: len(positions) - looking[1]] if at == looking[0] else positions
            if len(positions):
                rows = maps.cuts[cut.layer].scaled(cache.aux.rows.at(cache.aux.slots[positions])[None])
                self.parts.append((maps.cuts[cut.layer], positions, rows))

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def positions(self) -> list[Integer[mx.array, " F"]]:
        return [positions for _, positions, _ in self.parts]

    def of_stage(self, index: int) -> Parts:
        """Keys, rotated, and values in the layer of this index in the stage."""
        return self.of(self.first + index)

    def of(self, layer: int) -> list[tuple[Float[mx.array, "1 H_kv F D_h"], Float[mx.array, "1 H_kv F D_h"]]]:
        """Keys, rotated, and values in a layer of the stage or behind it."""
        place = self.model.family.attention_of(self.model.layers[layer]).placed
        predicted = ((maps.of_scaled(layer, rows), positions) for maps, positions, rows in self.parts)
        return [(place(keys, positions, self.context), values) for (keys, values), positions in predicted]


def importance_ahead(model: Network, maps: Maps, cache: LazyCache, number: int, step: Step) -> Float[mx.array, " P"]:
    """Importance at a cut: what the last `window` rows attend to in the first half of the layers behind it that see
    everything.

    Of a layer it is the most that any head of any row pays: few heads fetch, and a mean over all hides what they look
    at. The layers' are added up.
    """
    looked = looked_through(model.windows, cache.config.cuts[number - 1].layer)
    count, importance = looking_rows(cache, step), mx.zeros((cache.aux.places,))
    at = mx.arange(step.stop - count, step.stop, dtype=mx.int32)
    x = cache.aux.rows.at(cache.aux.slots[at])[None]
    for later in range(number, len(cache.stages)):
        start, stop = cache.layers_of(later)
        layers = range(start, min(stop, looked.stop))
        if not layers:
            break
        filled = FilledTokens(model, maps, cache, later, looking=(number, count))
        x, seen = _look(filled, cache, layers, x, at, step.window)
        importance = importance + seen
    return importance


def _look(
    filled: FilledTokens, cache: LazyCache, layers: range, x: mx.array, at: mx.array, window: int
) -> tuple[Float[mx.array, "1 L D"], Float[mx.array, " P"]]:
    """Through the first layers of one stage: the rows' outputs, and what they attend to, by position."""
    model, stage, begun = filled.model, cache.stages[filled.number], deque[mx.array]()
    positions = mx.concatenate([*filled.positions, stage.positions[: stage.filled]])
    seen = mx.concatenate([positions, at])
    shown, paid = Shown(causal(at, seen)), mx.zeros(seen.shape)
    in_hand = layers_in_hand(len(at), len(positions))
    for index, layer in enumerate(layers):
        parts = [*filled.of(layer), *_computed(stage.layers[index], stage.filled)]
        others = Others(positions, lambda _, parts=parts: parts, shown)
        view = View(at, None, Span(context=cache.offset), others=others)
        one = slice(layer, layer + 1)
        x, rows = run_layers(model.layers[one], model.windows[one], x, view, returned=(0,))
        if counts(model, layer):
            most = rows[0].probabilities[0, :, -window:].max(axis=(0, 1)).astype(mx.float32)
            paid = paid + over_ranks(model, most, "max")
        mx.async_eval(x, paid)
        begun.append(x)
        if len(begun) > in_hand:
            mx.eval(begun.popleft())
    by_position = mx.zeros((cache.aux.places,))
    by_position[seen] = paid
    return x, by_position


def counts(model: Network, layer: int) -> bool:
    """Whether what a layer attends to tells what is needed: one with a window says nothing on far tokens."""
    return model.windows[layer] is None or model.sight is not None


def _computed(layer: KeysValues, filled: int) -> Parts:
    """Keys and values that were computed."""
    return [layer.read(0, filled)] if filled else []


def waiting_at(cache: LazyCache, cut: int) -> Integer[mx.array, " F"]:
    """Positions of the tokens that wait at a cut, rising."""
    place, waits = mx.arange(cache.aux.places), cache.aux.depth == cut
    return mx.sort(mx.where(waits, place, cache.aux.places))[: cache.aux.waiting_at[cut - 1]]
