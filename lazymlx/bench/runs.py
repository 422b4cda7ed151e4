"""One run of a prompt through a `generate_step`: what it takes to the first token, and from there on.

Prefill is bound by arithmetic and is what leaving tokens behind saves; decode is bound by reading the weights, where
reviving tokens must not cost. Each model is driven by the loop that its users get: mlx-lm's, and ours.
"""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step as mlx_lm_generate_step
from mlx_lm.models.cache import make_prompt_cache

from ..cache.conversation import LazyCache
from ..engine.recall import recall_of, recalls
from ..generation import generate_step
from .models import Pair
from .plan import BenchVariant


@dataclass
class Record:
    """What was measured of one variant at one length; times are in seconds, one entry a run."""

    variant: str
    length: int
    step: int
    schedule: str | None = None  # None: stock
    revive: int | str | None = None  # tokens revived a step; None: stock, or nothing to revive
    ttft_s: list[float] = field(default_factory=list)
    decode_tps: list[float] = field(default_factory=list)
    peak_bytes: int | None = None  # above what was there before the run: the weights
    peaks: list[int] = field(
        default_factory=list
    )  # the same of each rank, where there are several: this is the highest
    kv_bytes: int | None = None
    aux_bytes: int | None = None
    kept: list[int] = field(default_factory=list)  # at each cut
    ideal: float | None = None  # speed-up over dense by operations, for exactly the scheduled shares
    ideal_kept: float | None = None  # the same for the tokens kept: protected ones come on top, counts are rounded


def start(pair: Pair, variant: BenchVariant, prompt: mx.array, max_tokens: int) -> tuple[Any, list[Any]]:
    """A loop over a prompt, not yet begun, and the cache that it fills."""
    options: dict[str, Any] = {"prefill_step_size": variant.step_size(len(prompt)), "max_tokens": max_tokens}
    if variant.lazy is None:
        cache = make_prompt_cache(pair.stock)
        return mlx_lm_generate_step(prompt, pair.stock, prompt_cache=cache, **options), cache
    cache = pair.ours.make_cache(variant.lazy)
    tokens = np.array(prompt).tolist()
    return generate_step(tokens, pair.ours, prompt_cache=cache, **options), cache


def finish(tokens: Any, cache: list[Any]) -> None:
    """End a loop, and wait for the step that it had sent ahead."""
    tokens.close()
    mx.eval([c.state for c in cache])


def timed(pair: Pair, variant: BenchVariant, prompt: mx.array, tokens: int = 0) -> tuple[float, float | None]:
    """Seconds until the first token's value is here, and the rate of `tokens` later ones.

    The second token is not among them, nor is the end of the loop near: one loop sends the second step ahead before it
    hands out the first token, the other one behind it, but in between both are at the same pace. Memory kept from the
    run before is given back first, as both loops do behind a prompt.
    """
    mx.clear_cache()
    loop, cache = start(pair, variant, prompt, tokens + 3)
    pair.ours.ranks.gather("ready", None)  # none waits for another while it is timed
    begin = perf_counter()
    next(loop)
    ttft, rate = perf_counter() - begin, None
    if tokens:
        next(loop)
        begin = perf_counter()
        for _ in range(tokens):
            next(loop)
        rate = tokens / (perf_counter() - begin)
    finish(loop, cache)
    return ttft, rate


def measured_memory(pair: Pair, variant: BenchVariant, prompt: mx.array, record: Record) -> float:
    """A prefill alone, its memory noted in `record`. Returns its seconds: the first run of a shape, a warm-up."""
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    begin = perf_counter()
    loop, cache = start(pair, variant, prompt, 0)
    for _ in loop:
        pass
    seconds = perf_counter() - begin
    peaks = pair.ours.ranks.gather("peak", mx.get_peak_memory() - before)
    record.peak_bytes, record.peaks = max(peaks), peaks if len(peaks) > 1 else []
    if variant.lazy is None:
        record.kv_bytes, record.aux_bytes = sum(c.nbytes for c in cache), 0
    else:
        stats = cache[0].stats()
        record.kv_bytes = stats.kv_bytes + _recalled(pair, cache[0])
        record.aux_bytes, record.kept = stats.aux_bytes, list(stats.kept)
    return seconds


def _recalled(pair: Pair, cache: LazyCache) -> int:
    """Bytes that an answer keeps of predicted keys and values, from its first token on."""
    maps = pair.ours.engine.maps
    if maps is None or not cache.config.cuts or not recalls(cache, maps):
        return 0
    return recall_of(pair.ours, maps, cache).nbytes


def new_record(variant: BenchVariant, length: int) -> Record:
    """An empty one."""
    record = Record(variant.name, length, variant.step_size(length))
    if variant.lazy is not None:
        record.schedule = str(variant.lazy.schedule)
        if variant.lazy.cuts:
            record.revive = "all" if variant.lazy.revive is None else variant.lazy.revive
    return record
