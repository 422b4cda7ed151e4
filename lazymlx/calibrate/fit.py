"""Fitting maps: ridge regression in closed form, from hidden states at cuts to keys and values behind them.

All of the text goes through one layer before it goes through the next, so that the sums of one layer alone are held at
a time, and every layer's map is final when the layer is done.
"""

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np
from jaxtyping import Float

from ..cache.masks import Mask, causal
from ..cache.stage import Span
from ..errors import MapsError
from ..nn.attention import Attention, Rows
from ..nn.maps import R2, CutMap, Factor, LayerMap, Maps, unit
from ..nn.network import Network

SINK = 4  # first tokens of a chunk, unlike all others: they are never left behind, so no map is asked about them
RIDGE = 1e-3
FLAT = 1e-3  # of the usual deviation: a value of the states that varies less is taken to vary so much
HELD_EVERY = 6  # of the chunks, one in so many is not fitted to but tells how good the maps are


def fit_maps(
    model: Network,
    chunks: Sequence[Sequence[int]],
    cuts: Sequence[int],
    *,
    fingerprint: str,
    ridge: float = RIDGE,
    bits: int | None = 8,
    rank: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Maps:
    """The maps of a model for some cuts.

    Beside the model and the maps, with N for the keys and values of a token in a layer, memory holds (1 + cuts) x
    tokens x D values of the model's own type for states and a sixth of tokens x N for what is held out; in float64 two
    matrices D x D a cut and, while one is solved, two more and three D x N; and in float32 a matrix D x N a cut.

    Args:
        chunks: tokens of texts; every sixth chunk is held out.
        cuts: layers.
        fingerprint: of the model, see `Maps`.
        ridge: weight of the penalty, as a share of the states' mean variance.
        bits: of the maps' matrices; None for 16.
        rank: of the maps, where two factors of this rank are smaller than one matrix; None for full ones.
        progress: called with the share of the layers that are done; may raise to stop.

    Raises:
        MapsError: there are too few tokens, or a cut is not between two layers.
    """
    _check(model, chunks, cuts)
    states = [model.embedded(mx.array([chunk])) for chunk in chunks]
    sources: dict[int, Source] = {}
    found: dict[int, list[LayerMap]] = {cut: [] for cut in cuts}
    r2: dict[int, list[R2]] = {cut: [] for cut in cuts}
    deep = [model.family.attention_of(layer) for layer in model.layers]
    for layer in range(len(deep)):
        if layer in found:
            sources[layer] = Source(list(states), ridge)
        sums, held = _through(model, layer, states, sources)
        for cut, source in sources.items():
            found[cut].append(source.fitted(sums[cut], bits, rank))
            r2[cut].append(_r2(found[cut][-1], source, held))
        if progress is not None:
            progress((layer + 1) / len(deep))
    heads = [attention.kv_heads for attention in deep]
    maps = {
        cut: CutMap(cut, tuple(heads[cut:]), tuple(layers), sources[cut].scale, tuple(r2[cut]))
        for cut, layers in found.items()
    }
    return Maps(fingerprint, maps, bits)


class Sums:
    """What a regression needs to know of its rows, added up chunk by chunk: their products and their sum."""

    def __init__(self) -> None:
        self.products, self.total = mx.array(0.0), mx.array(0.0)

    def add(self, features: Float[mx.array, "L D"], targets: Float[mx.array, "L N"]) -> None:
        self.products = self.products + features.T @ targets
        self.total = self.total + targets.sum(axis=0)
        mx.eval(self.products, self.total)


class Source:
    """The states at a cut, and what depends on them alone."""

    def __init__(self, states: list[mx.array], ridge: float):
        self.states = states
        fitted = [n for n in range(len(states)) if not is_held(n)]
        sums = Sums()
        for n in fitted:
            sums.add(self.features(n), self.features(n))
        self.count = sum(states[n].shape[1] - SINK for n in fitted)
        self.mean = _double(sums.total) / self.count
        self.gram = _double(sums.products) - self.count * np.outer(self.mean, self.mean)
        self.scale = _scale(np.diag(self.gram) / self.count)
        D = len(self.gram)
        self.inverse = np.linalg.inv(self.gram + np.eye(D) * (ridge * np.trace(self.gram) / D))

    def features(self, chunk: int, scale: Float[mx.array, " D"] | None = None) -> Float[mx.array, "L D"]:
        return unit(self.states[chunk][0, SINK:].astype(mx.float32), scale)

    def fitted(self, sums: Sums, bits: int | None, rank: int | None) -> LayerMap:
        """The map to a layer's keys and values. Means are fitted without a penalty."""
        mean = _double(sums.total) / self.count
        weight = self.inverse @ (_double(sums.products) - self.count * np.outer(self.mean, mean))  # (D, N)
        first, *rest = self._factors(weight, rank)
        parts = [first / _double(self.scale), *rest]
        factors = [Factor.of(mx.array(part.astype(np.float32)), bits) for part in parts]
        usual = self.mean * _double(self.scale)
        for factor in factors:  # as they are stored: what is lost of them is not lost of the mean
            usual = _double(factor.full().astype(mx.float32)) @ usual
        return LayerMap(tuple(factors), mx.array((mean - usual).astype(np.float32)))

    def _factors(self, weight: np.ndarray, rank: int | None) -> list[np.ndarray]:
        """The map in full; or the one of a rank that is nearest to it on these states, if it is smaller."""
        D, N = weight.shape
        if rank is None or rank * (D + N) >= D * N:
            return [weight.T]
        _, directions = np.linalg.eigh(weight.T @ self.gram @ weight)
        best = directions[:, -rank:]  # of the predictions, those that vary most
        return [(weight @ best).T, best]


def _scale(variance: np.ndarray) -> Float[mx.array, " D"]:
    """About the inverse of the standard deviation, as a power of two; of what hardly varies, not without end."""
    deviation = np.sqrt(np.maximum(variance, FLAT**2 * variance.mean()))
    return mx.array(np.exp2(-np.round(np.log2(deviation))).astype(np.float32))


def is_held(chunk: int) -> bool:
    """Whether a chunk is held out."""
    return chunk % HELD_EVERY == HELD_EVERY - 1


def _through(
    model: Network, layer: int, states: list[mx.array], sources: Mapping[int, Source]
) -> tuple[dict[int, Sums], dict[int, mx.array]]:
    """Take all chunks through a layer, each in its place; the sums for every cut, and the targets of held chunks."""
    sums, held = {cut: Sums() for cut in sources}, {}
    attention, window = model.family.attention_of(model.layers[layer]), model.windows[layer]
    for n, x in enumerate(states):
        L = x.shape[1]
        near = window is None or window >= L
        mask: Mask = "causal" if near else causal(mx.arange(L), mx.arange(L), window)
        rows = Rows(0, None, Span(context=L))
        states[n] = model.layers[layer](x, mask=mask, cache=rows)
        mx.eval(states[n])
        if sources and is_held(n):
            held[n] = _keys_values(attention, rows.given)
            mx.eval(held[n])
        elif sources:
            targets = _keys_values(attention, rows.given).astype(mx.float32)
            for cut, source in sources.items():
                sums[cut].add(source.features(n), targets)
    return sums, held


def _keys_values(attention: Attention, x: Float[mx.array, "1 L D"]) -> Float[mx.array, "T N"]:
    """Keys, not rotated, and values of a chunk's rows but the first, one behind the other."""
    _, keys, values = attention.project(attention, x[:, SINK:])
    return mx.concatenate([part.reshape(part.shape[1], -1) for part in (keys, values)], axis=-1)


def _r2(found: LayerMap, source: Source, held: Mapping[int, mx.array]) -> R2:
    """On chunks that were held out, by the map in the form that it is stored in."""
    used, error, squares, total, count = found.used_in(mx.float32), 0.0, 0.0, 0.0, 0
    for n, targets in held.items():
        y, predicted = targets.astype(mx.float32), used(source.features(n, source.scale))
        error = error + _double(((predicted - y) ** 2).sum(axis=0))
        squares, total = squares + _double((y * y).sum(axis=0)), total + _double(y.sum(axis=0))
        count += len(y)
    variance = squares - np.asarray(total) ** 2 / count
    keys, values = (
        float(1 - lost.sum() / max(have.sum(), 1e-30))
        for lost, have in zip(np.split(np.asarray(error), 2), np.split(variance, 2), strict=True)
    )
    return R2(keys, values)


def _double(x: mx.array) -> np.ndarray:
    return np.array(x, dtype=np.float64)


def _check(model: Network, chunks: Sequence[Sequence[int]], cuts: Sequence[int]) -> None:
    layers = len(model.layers)
    if wrong := [cut for cut in cuts if not 0 < cut < layers]:
        raise MapsError(
            f"maps: a cut lies between two of the model's {layers} layers, at 1 to {layers - 1}; got {wrong[0]}"
        )
    short = min(map(len, chunks), default=0)
    if len(chunks) < HELD_EVERY or short <= SINK:
        raise MapsError(
            f"maps: too little text to fit: expected {HELD_EVERY} chunks or more of more than {SINK} tokens, got "
            f"{len(chunks)}, the shortest of {short}; give more or longer texts"
        )
    fitted = sum(len(chunk) - SINK for n, chunk in enumerate(chunks) if not is_held(n))
    if fitted <= 2 * model.hidden_size:
        raise MapsError(
            f"maps: too little text to fit: {fitted} tokens, expected more than two for each of a state's "
            f"{model.hidden_size} values; give more texts"
        )
