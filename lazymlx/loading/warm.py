"""Warming up: where kernels are compiled at their first use, that is done before anybody waits for an answer."""

from dataclasses import replace

import mlx.core as mx
from mlx_lm.generate import generation_stream

from ..config import LazyConfig
from ..engine.model import Model
from ..nn.compiling import compiles

TOKENS = 96  # of the prompt: enough that some are left behind, and can come back


def warm_once(model: Model) -> None:
    """Warm a model up, if that was not done yet and the device compiles anything."""
    if compiles() and not model.warm:
        warm_up(model)


def warm_up(model: Model) -> None:
    """Run through everything once: a prompt at whose end tokens are left behind, by looking ahead where there are maps;
    a step that brings some back, and one that does not."""
    config = small(model.lazy)
    [cache] = model.make_cache(config)
    with mx.stream(generation_stream):
        cache.expect(TOKENS)
        logits = model(mx.arange(TOKENS)[None] % model.vocab_size, cache=[cache])
        for _ in range(config.revive_every + 1):
            assert logits is not None
            logits = model(logits[:, -1].argmax(axis=-1)[None], cache=[cache])
        mx.eval(logits, cache.state)
    model.warm = True
    mx.clear_cache()


def small(lazy: LazyConfig) -> LazyConfig:
    """The same for a short prompt: most of it may be left behind, and what is packed later is packed at once."""
    rows = TOKENS // 8
    return replace(
        lazy,
        min_tokens=0,
        round_to=1,
        sink=1,
        recent=1,
        window=min(lazy.window, rows),
        lookahead=min(lazy.lookahead, rows),
        quantized_kv_start=0,
    )
