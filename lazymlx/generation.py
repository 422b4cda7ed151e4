"""`stream_generate` and `generate`: mlx-lm's own loop around the staged model.

The loop feeds a prompt in chunks and its last token alone; the cache is told the prompt's length beforehand, so that
selection happens when the question is complete, and the last chunk is computed together with the last token.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import GenerationResponse, generation_stream, wired_limit
from mlx_lm.generate import stream_generate as mlx_lm_stream_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .cache import LazyCache
from .errors import PromptError, UsageError
from .memory import ensure_fits
from .model import Model
from .progress import Meter, OnProgress
from .stats import LazyStats

REFUSED = {
    "draft_model": "speculative decoding is not supported; generate without a draft model",
    "max_kv_size": "a lazy cache cannot overwrite old tokens, since any of them may come back; leave it out",
    "kv_bits": "a lazy cache cannot be quantised; leave it out",
}


@dataclass
class LazyResponse(GenerationResponse):
    """mlx-lm's response, and what the answer has cost so far."""

    cache: LazyCache | None = None

    @property
    def ttft_s(self) -> float:
        """Seconds from the prompt's arrival to the first token."""
        return self.prompt_tokens / self.prompt_tps

    @property
    def lazy(self) -> LazyStats:
        """Counts as of now; asking for them in the middle of an answer waits for the device."""
        assert self.cache is not None
        return self.cache.stats(self.ttft_s)


def stream_generate(
    model: Model,
    tokenizer: TokenizerWrapper,
    prompt: str | mx.array | Sequence[int],
    max_tokens: int = 256,
    *,
    prompt_cache: list[LazyCache] | None = None,
    prefill_step_size: int = 2048,
    max_memory: int | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Generator[LazyResponse, None, None]:
    """Generate text piece by piece.

    Args:
        prompt: text, or token ids. With a `prompt_cache` it continues the conversation, as a follow-up question.
        prompt_cache: of `model.make_cache()`; updated in place.
        prefill_step_size: tokens computed at a time in prefill, in every stage; bounds the peak memory.
        max_memory: bytes that may be taken, weights included; None is what the device recommends.
        on_progress: is told how far the prompt has been read, see `Progress`; returning False cancels.
        options: as in `mlx_lm.stream_generate`: sampler, logits_processors, prompt_progress_callback, ...

    Yields:
        mlx-lm's `GenerationResponse` with a `lazy` property, see `LazyStats`.

    Raises:
        PromptError: the prompt is empty.
        UsageError: an option that a lazy cache cannot serve.
        TooLargeError: the prompt would take more memory than it may.
        Cancelled: by `on_progress`; half of the prompt is in the cache then, `Mark` can bring it back.
    """
    check_options(options, prefill_step_size)
    tokens = encode(tokenizer, prompt)
    cache = model.make_cache()[0] if prompt_cache is None else prompt_cache[0]
    ensure_fits(model, cache, len(tokens), step_size=prefill_step_size, max_memory=max_memory)
    cache.expect(len(tokens), tail=template_tail(tokenizer, tokens), step_size=prefill_step_size)
    callback = _metered(cache, len(tokens), on_progress, options.pop("prompt_progress_callback", None))
    responses = mlx_lm_stream_generate(
        model,
        tokenizer,
        tokens,
        max_tokens,
        prompt_cache=[cache],
        prefill_step_size=prefill_step_size,
        prompt_progress_callback=callback,
        **options,
    )
    try:
        for response in responses:
            known = {f.name: getattr(response, f.name) for f in fields(response)}
            yield LazyResponse(**known, cache=cache)
    finally:
        cache.on_rows = None
        responses.close()


def read(
    model: Model,
    tokens: Sequence[int],
    prompt_cache: list[LazyCache],
    *,
    prefill_step_size: int = 2048,
    max_memory: int | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Read the beginning of a prompt: stage 0 only, whatever is asked later.

    Args:
        tokens: the next ones; the rest of the prompt goes to `stream_generate` with the same cache.
        prompt_cache, prefill_step_size, max_memory, on_progress: as in `stream_generate`.

    Raises:
        PromptError: there are no tokens.
        TooLargeError: they would take more memory than they may.
        Cancelled: by `on_progress`; some of the tokens are in the cache then.
    """
    check_options({}, prefill_step_size)
    if not tokens:
        raise PromptError("prompt: it is empty; give at least one token")
    cache = prompt_cache[0]
    ensure_fits(model, cache, len(tokens), step_size=prefill_step_size, max_memory=max_memory)
    cache.expect(len(tokens), complete=False, step_size=prefill_step_size)
    meter = Meter(on_progress, cache.offset, len(tokens), [1])
    with wired_limit(model), mx.stream(generation_stream):
        meter.report(0, 0, len(tokens))
        for start in range(0, len(tokens), prefill_step_size):
            chunk = list(tokens[start : start + prefill_step_size])
            model(mx.array([chunk]), cache=prompt_cache)
            mx.eval(cache.state)
            mx.clear_cache()
            meter.report(0, start + len(chunk), len(tokens))
    meter.finish()


def check_options(options: dict[str, Any], prefill_step_size: int) -> None:
    """Refuse what a lazy cache cannot serve; drop such options where they ask for nothing."""
    for name, reason in REFUSED.items():
        if options.pop(name, None) is not None:
            raise UsageError(f"{name}: {reason}")
    if prefill_step_size < 1:
        raise UsageError(f"prefill_step_size: must be at least 1, got {prefill_step_size}")


def _metered(
    cache: LazyCache, tokens: int, on_progress: OnProgress | None, callback: Callable[[int, int], None] | None
) -> Callable[[int, int], None]:
    """Have progress reported: from the loop for stage 0, from the cache for those behind it."""
    start, meter = cache.offset, Meter(on_progress, cache.offset, tokens, planned_work(cache, tokens))
    cache.on_rows = meter.report

    def report(processed: int, total: int) -> None:
        if callback is not None:
            callback(processed, total)
        if processed < total:
            meter.report(0, cache.offset - start, total)  # a chunk that waits for the last token is not computed yet
        else:
            meter.finish()

    return report


def planned_work(cache: LazyCache, tokens: int) -> list[int]:
    """Token-layers that a prompt of `tokens` will take in each stage, about."""
    config, N = cache.config, cache.offset + tokens
    rows = [tokens]
    for cut, stage in zip(config.cuts, cache.stages[1:], strict=True):
        kept = N if N < config.min_tokens else cut.count(N) + config.sink + config.recent
        rows.append(min(max(kept - stage.filled, config.window), N))
    return [n * len(stage.pools) for n, stage in zip(rows, cache.stages, strict=True)]


def generate(model: Model, tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int], **options: Any) -> str:
    """Generate a whole answer; the arguments are those of `stream_generate`."""
    return "".join(response.text for response in stream_generate(model, tokenizer, prompt, **options))


def encode(tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int]) -> list[int]:
    """Token ids of a prompt; a text that does not begin with the first-token marker gets one."""
    if isinstance(prompt, str):
        marked = tokenizer.bos_token is not None and prompt.startswith(tokenizer.bos_token)
        prompt = tokenizer.encode(prompt, add_special_tokens=not marked)
    tokens = [int(token) for token in np.array(prompt).reshape(-1)]
    if not tokens:
        raise PromptError("prompt: it is empty; give at least one token")
    return tokens


def template_tail(tokenizer: TokenizerWrapper, tokens: Sequence[int]) -> int:
    """How many of a prompt's last tokens are the chat template's own, hence say nothing about the question."""
    if not tokenizer.has_chat_template:
        return 0
    one, other = (
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True)
        for text in ("one", "two 2")
    )
    tail = 0
    while tail < min(len(one), len(other)) and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    return tail if tail and list(tokens[-tail:]) == list(one[-tail:]) else 0
