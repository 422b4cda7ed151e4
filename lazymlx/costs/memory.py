"""How much memory a prompt will take, known before it is read.

A device that runs full says so late (see `full.py`), and Metal swaps before it does: what does not fit has to be
refused beforehand. The estimate is a sum of buffers whose sizes are known, and of a layer's intermediates, for which
the factors below were fitted to measured peaks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..cache.conversation import LazyCache
from ..cache.rows import STEP
from ..config import STEP_SIZE, LazyConfig
from ..engine.links import BITS, GROUP_SIZE
from ..engine.model import Model
from ..errors import TooLargeError
from ..nn.backend import FUSED_HEADS, ways
from ..nn.loop import FEWEST_IN_HAND, IN_HAND, layers_in_hand
from ..schedule import PRESETS
from ..units import size
from .flops import rows_by_layer

LEAST_STEP = 64


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the worst moment of reading a prompt.

    Attributes:
        weights: of the model, and of the maps to look ahead with.
        stage_0: keys and values of every token, in the layers before the first cut.
        deep: keys and values of the tokens that are computed behind the cuts, and of others those that are kept.
        aux: hidden states of the tokens that are left behind, and what is kept to select them.
        working: what a chunk needs while it is computed, as far as it exceeds what comes later.
    """

    weights: int
    stage_0: int
    deep: int
    aux: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.stage_0 + self.deep + self.aux + self.working


def estimate_memory(
    model: Model,
    n_tokens: int,
    config: LazyConfig | None = None,
    *,
    step_size: int = STEP_SIZE,
    context: int = 0,
    lends: bool = False,
) -> MemoryEstimate:
    """What a prompt of `n_tokens` takes.

    Args:
        config: what is left behind; None is the model's own configuration.
        step_size: tokens computed at a time in prefill.
        context: tokens that the conversation holds already.
        lends: it keeps for others what comes to the first cut.
    """
    shape = _Shape(model)
    config = model.resolve(config or model.lazy)
    N = context + n_tokens
    edges = [*(cut.layer for cut in config.cuts), shape.layers]
    rows = [config.let_through(cut, N) for cut in config.cuts]
    depths = [stop - start for start, stop in pairwise(edges)]
    kv_bits = config.kv_bits if context + n_tokens > config.quantized_kv_start else None
    kv, hidden = (shape.share(bits, config.kv_group_size) for bits in (kv_bits, config.aux_bits))
    each = [shape.kv(int(n)) for n in rows_by_layer(shape.layers, config.cuts, [N, *rows])]
    stage_0, deep = int(kv * sum(each[: edges[0]])), int(kv * sum(each[edges[0] :]))
    aux = (1 + lends) * int(hidden * _rounded(N) * shape.width) if config.cuts else 0
    if config.cuts and config.links:
        aux += int(shape.share(BITS, GROUP_SIZE) * _rounded(N) * shape.queries)

    maps = model.engine.maps
    looks = maps is not None and maps.serve(config) and bool(config.cuts)
    first = shape.chunk(min(step_size, n_tokens), N, edges[0])
    first += 0 if kv_bits is None else shape.kv(N)  # a layer is unpacked
    behind = [
        shape.chunk(min(step_size, n), n, layers, masked=context > 0)
        + 3 * n * shape.width
        + (shape.beside(config, N - n, FEWEST_IN_HAND) if looks and config.filled != "choosing" else 0)
        for n, layers in zip(rows, depths, strict=True)
    ]
    ahead = [shape.looking(config, N)] if looks else []
    if looks and config.filled == "kept":
        recalled = shape.share(ways().recall_bits, GROUP_SIZE)
        deep += int(recalled * sum((N - n) * layers for n, layers in zip(rows, depths, strict=True)) * shape.token)
    weights = shape.weights + (maps.nbytes if maps is not None else 0)
    return MemoryEstimate(weights, stage_0, deep, aux, max(first - deep, *behind, *ahead, 0))


class _Shape:
    """The sizes of a model, in bytes."""

    def __init__(self, model: Model):
        attention = model.family.attention_of(model.layers[0])
        width, size = model.hidden_size, model.dtype.size
        queries, keys, _ = model.projected()
        self.layers, self.value = len(model.layers), size
        self.weights = sum(w.nbytes for _, w in tree_flatten(model.parameters()) if isinstance(w, mx.array))
        self.width, self.queries, self.token = width * size, queries.size * size, 2 * keys.size * size
        self.hidden = _feed_forward(model.family.core(model).args) * size // model.ranks.size
        self.heads = queries.shape[2]
        self.scores = self.heads * size  # of one query and one key, in all heads
        self.on_gpu = mx.default_device() == mx.Device(mx.gpu)
        self.fused = self.on_gpu and attention.softcap is None and queries.shape[-1] in FUSED_HEADS

    def kv(self, rows: int) -> int:
        """Keys and values of one layer."""
        return _rounded(rows) * self.token

    def share(self, bits: int | None, group_size: int) -> float:
        """What packed values take of their size: each group has a scale and a bias of its own."""
        return 1.0 if bits is None else bits / (8 * self.value) + 2 / group_size

    def looking(self, config: LazyConfig, N: int) -> int:
        """Rows at the cut, and what the layers in hand have: no more than there are behind it."""
        in_hand = min(layers_in_hand(min(config.lookahead, N), N), self.layers - config.cuts[0].layer)
        return N * 2 * self.width + self.beside(config, N, in_hand)

    def beside(self, config: LazyConfig, tokens: int, layers: int) -> int:
        """For each layer in hand, filled keys and values, copies that join and rotate them, and what the rows that
        look attend to, at most in float32 where it is counted."""
        scores = min(config.lookahead, tokens) * tokens * (1 + self.scores) + config.window * tokens * 4 * self.heads
        return (layers if self.on_gpu else 1) * (tokens * 4 * self.token + scores)

    def chunk(self, L: int, S: int, layers: int, *, masked: bool = False) -> int:
        """Intermediates for `L` rows that attend to `S`. A GPU has those of some of the `layers` in hand at a time."""
        row = 3 * self.hidden + 8 * self.width + 2 * self.queries + self.token
        mask = 1 if masked or not self.fused else 0
        in_hand = min(max(IN_HAND, 2 * L), layers * L) if self.on_gpu else L
        return in_hand * (row + S * (mask if self.fused else mask + self.scores))


def _feed_forward(args: Any) -> int:
    """Size of a feed-forward's inner layer; of experts, all that a token passes through."""
    experts = getattr(args, "num_experts_per_tok", None) or 1
    of_an_expert = getattr(args, "moe_intermediate_size", None) or args.intermediate_size
    return max(args.intermediate_size, experts * of_an_expert)


def _rounded(rows: int) -> int:
    return -(-rows // STEP) * STEP


def memory_limit() -> int | None:
    """Bytes that the device recommends to stay below; None where it does not say."""
    limit = mx.device_info().get("max_recommended_working_set_size")
    return int(limit) if limit else None


def memory_to_go_on(
    model: Model, cache: LazyCache, n_tokens: int, config: LazyConfig, *, step_size: int
) -> MemoryEstimate:
    """What a conversation takes with so many tokens more."""
    lends = cache.lent is not None
    return estimate_memory(model, n_tokens, config, step_size=step_size, context=cache.offset, lends=lends)


def ensure_fits(model: Model, cache: LazyCache, n_tokens: int, *, step_size: int, max_memory: int | None) -> None:
    """Refuse a prompt that would take more than may be taken.

    Args:
        max_memory: bytes for the model and this conversation; None is what the device recommends for all together,
            less what others (sessions, models) have taken of it.

    Raises:
        TooLargeError: the message names the figure, and what would fit.
    """
    limit = memory_limit() if max_memory is None else max_memory
    if limit is None:
        return

    def needed(config: LazyConfig, step_size: int) -> MemoryEstimate:
        return memory_to_go_on(model, cache, n_tokens, config, step_size=step_size)

    need, whose = needed(cache.config, step_size), "they may take"
    if max_memory is None:
        limit -= max(mx.get_active_memory() - need.weights - cache.nbytes, 0)
        whose = "the device has room for"
    limit = min(model.ranks.gather("room", limit))
    if need.total > limit:
        advice = _advice(cache.config, step_size, lambda *change: needed(*change).total <= limit)
        raise TooLargeError(
            f"memory: {cache.offset + n_tokens} tokens need about {size(need.total)}, {size(need.weights)} of it for "
            f"the weights, but {whose} at most {size(max(limit, 0))}; {advice}"
        )


def _advice(config: LazyConfig, step_size: int, fits: Callable[[LazyConfig, int], bool]) -> str:
    """The least change with which a prompt fits."""
    smaller = step_size // 2
    while smaller >= LEAST_STEP:
        if fits(config, smaller):
            return f"a prefill step size of {smaller} would fit"
        smaller //= 2
    for preset in PRESETS:
        if fits(replace(config, schedule=preset), step_size):
            return f"the schedule '{preset}' would fit"
        if fits(replace(config, schedule=preset), LEAST_STEP):
            return f"the schedule '{preset}' with a prefill step size of {LEAST_STEP} would fit"
    return "no schedule would fit; shorten the prompt, or use a smaller model"
