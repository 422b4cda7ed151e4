"""How a prompt gets into the cache: from text to tokens, and from tokens to the last one's logits.

mlx-lm's loop feeds a prompt in chunks and its last token alone. This one announces to the cache how long the prompt is,
computes the last token together with the last chunk, and prepares a chunk while the device works on the one before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from jaxtyping import Float
from mlx_lm.generate import generation_stream
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .cache.conversation import LazyCache
from .cache.undo import Mark
from .config import STEP_SIZE, LazyConfig
from .costs.full import refused_if_full
from .costs.memory import ensure_fits
from .ending import ENDING
from .engine.model import Model
from .errors import Cancelled, PromptError, UsageError
from .progress import Meter, OnProgress, Progress
from .ranks.group import Ranks
from .templates import rendered
from .wired import WIRED


@dataclass(frozen=True)
class Limits:
    """What computing a prompt may take.

    Attributes:
        step_size: tokens computed at a time; bounds the peak memory.
        max_memory: bytes that may be taken, weights included; None is what the device recommends.
    """

    step_size: int = STEP_SIZE
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.step_size, int) or self.step_size < 1:
            raise UsageError(f"prefill_step_size: must be a whole number of at least 1, got {self.step_size}")


def read(
    model: Model,
    tokens: Sequence[int] | mx.array,
    prompt_cache: list[LazyCache],
    *,
    prefill_step_size: int = STEP_SIZE,
    max_memory: int | None = None,
    on_progress: OnProgress | None = None,
    on_cancel: Callable[[], None] | None = None,
) -> None:
    """Read the beginning of a prompt: stage 0 only, whatever is asked later.

    Args:
        tokens: the next ones; the rest of the prompt goes to `stream_generate` with the same cache.
        prompt_cache: of `model.make_cache()`; updated in place.
        prefill_step_size: tokens computed at a time; bounds the peak memory.
        max_memory: bytes that may be taken, weights included; None is what the device recommends.
        on_progress: called with how far the prompt has been read, see `Progress`; returning False cancels.
        on_cancel: called then, while the cache still holds what was read.

    Raises:
        PromptError: there are no tokens.
        TooLargeError: they would take more memory than they may.
        Cancelled: by `on_progress`; the cache is as it was before.
    """
    limits, hooks = Limits(prefill_step_size, max_memory), {"on_progress": on_progress, "on_cancel": on_cancel}
    with WIRED.held():
        prefill(model, token_ids(tokens), prompt_cache, complete=False, limits=limits, **hooks)
    mx.clear_cache()


def prefill(
    model: Model,
    tokens: list[int],
    prompt_cache: list[LazyCache],
    *,
    complete: bool = True,
    tail: int = 0,
    limits: Limits = Limits(),
    on_progress: OnProgress | None = None,
    on_cancel: Callable[[], None] | None = None,
) -> Float[mx.array, "1 V"] | None:
    """Compute a prompt. Returns its last token's logits, or None if the prompt is not complete.

    The device may not be done with the logits yet; what else changed in the cache is not begun then. Whatever ends it
    early, the cache is as it was before.

    Args:
        tail: how many of the last tokens are the chat template's.
        on_cancel: see `read`; of a prompt that is not complete, whole chunks are read by then.
    """
    if not 0 <= min(tokens) <= max(tokens) < model.vocab_size:
        found = f"{min(tokens)} to {max(tokens)}"
        raise PromptError(f"prompt: expected tokens from 0 to {model.vocab_size - 1}, got some from {found}")
    L, cache, step_size = len(tokens), prompt_cache[0], limits.step_size
    ensure_fits(model, cache, L, step_size=step_size, max_memory=limits.max_memory)
    before = Mark(cache)
    cache.expect(L, complete=complete, tail=tail)
    watch = on_progress if model.ranks.size == 1 else agreed(model.ranks, on_progress)
    work = planned_work(cache, L) if complete else [1]
    meter = Meter(watch, cache.offset, L, work, patient=not complete)
    with refused_if_full(model, cache.config, L, cache.offset, step_size):
        try:
            with mx.stream(generation_stream):
                logits = _by_chunks(model, mx.array(tokens), cache, step_size, meter)
            meter.finish()
        except BaseException as error:
            with ENDING.waits():
                mx.clear_cache()  # the device may be full
                if on_cancel is not None and isinstance(error, Cancelled):
                    on_cancel()
                before.restore(cache)
            raise
    return logits


def agreed(ranks: Ranks, on_progress: OnProgress | None) -> OnProgress:
    """Progress that all ranks make; rank 0's alone is reported, and may be cancelled."""

    def watch(progress: Progress) -> bool:
        return ranks.decided("read on", lambda: on_progress is None or on_progress(progress) is not False)

    return watch


def _by_chunks(model: Model, tokens: mx.array, cache: LazyCache, step_size: int, meter: Meter) -> mx.array | None:
    L, before, logits = tokens.size, None, None
    meter.report(0, 0, L)
    for start in range(0, L, step_size):
        meter.heed()

        def report(stage: int, done: int, rows: int, before: int = start) -> None:
            meter.report(stage, *((before + done, L) if stage == 0 else (done, rows)))

        with ENDING.waits():
            x = model.embedded(tokens[None, start : start + step_size])
            done = model.advance(x, cache, rows_at_a_time=step_size, report=report)
            logits = None if done.x is None else model.answer(done.x)
            # not keys and values: while they are waited for, the next chunk cannot be written to their place
            mx.async_eval(done.begun, cache.beside if logits is None else logits)
            if before is not None:
                mx.eval(before)  # the device is never more than a chunk behind
        if before is not None:
            meter.report(0, start, L)
        before = done.begun
    if logits is None:
        with ENDING.waits():
            mx.eval(cache.state)
        return None
    return logits[:, -1]


def planned_work(cache: LazyCache, tokens: int) -> list[int]:
    """Token-layers that a prompt of `tokens` will take in each stage, about."""
    config, N = cache.config, cache.offset + tokens
    rows = [tokens]
    for cut, stage in zip(config.cuts, cache.stages[1:], strict=True):
        rows.append(min(max(config.let_through(cut, N) - stage.filled, config.window), N))
    return [n * len(stage.layers) for n, stage in zip(rows, cache.stages, strict=True)]


def encode(tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int]) -> list[int]:
    """Token ids of a prompt; a text that does not begin with the first-token marker gets one."""
    if not isinstance(prompt, str):
        return token_ids(prompt)
    marked = tokenizer.bos_token is not None and prompt.startswith(tokenizer.bos_token)
    return token_ids(tokenizer.encode(prompt, add_special_tokens=not marked, verbose=False))


def token_ids(tokens: mx.array | Sequence[int]) -> list[int]:
    """Tokens of a single prompt as numbers.

    Raises:
        PromptError: there are none, or they are several prompts or no whole numbers.
    """
    ids = np.array(tokens)
    if ids.size == 0:
        raise PromptError("prompt: it is empty; give at least one token")
    if ids.size != ids.shape[-1] or not np.issubdtype(ids.dtype, np.integer):
        raise PromptError(f"prompt: expected the token ids of one prompt, got {ids.dtype} of shape {ids.shape}")
    return ids.reshape(-1).tolist()


def cache_for(
    model: Model, tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int], lazy: LazyConfig | None = None
) -> list[LazyCache]:
    """A prompt cache that knows a prompt, for loops that would not announce it: with it `mlx_lm.generate`, for example,
    chooses the tokens of `stream_generate`.

    Args:
        prompt: the one that the loop will read, text or token ids.
        lazy: as of `Model.make_cache`.
    """
    tokens, cache = encode(tokenizer, prompt), model.make_cache(lazy)
    cache[0].expect(len(tokens), tail=template_tail(tokenizer, tokens))
    return cache


def template_tail(tokenizer: TokenizerWrapper, tokens: Sequence[int]) -> int:
    """How many of a prompt's last tokens are the chat template's own, hence say nothing about the question."""
    if not tokenizer.has_chat_template:
        return 0
    try:
        one, other = (
            rendered(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
            for text in ("one", "two 2")
        )
    except PromptError:  # it takes no such conversation, so the prompt is not of its making
        return 0
    one, other = (tokenizer.encode(text, add_special_tokens=False) for text in (one, other))
    tail = 0
    while tail < min(len(one), len(other)) and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    return tail if tail and list(tokens[-tail:]) == list(one[-tail:]) else 0
