"""`stream_generate` and `generate`: a prompt goes in, text comes out piece by piece.

The loop does what mlx-lm's does (which works with a lazy model too), except that the first token is handed out
before the second is prepared.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import mlx.core as mx
import numpy as np
from jaxtyping import Integer
from mlx_lm.generate import GenerationResponse, generation_stream
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .cache.conversation import LazyCache
from .config import MOST, STEP_SIZE, STORAGE
from .costs.full import refused_if_full
from .ending import ENDING
from .engine.model import Model
from .errors import UsageError
from .prefill import Limits, encode, prefill, template_tail, token_ids
from .progress import OnProgress, Progress
from .stats import LazyStats
from .wired import WIRED

Sampler = Callable[[mx.array], mx.array]
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]
OnStep = Callable[[LazyCache, Sequence[int] | mx.array, mx.array | None], None]
"""Called with the cache before the prompt, and after each step: the tokens it took in, and the one that it chose."""

REFUSED = {
    "draft_model": "drafts are checked several at a time, but each token chooses for itself what comes back; leave it "
    "out, or give mlx_lm's own generate a model loaded with LazyConfig.dense()",
    "max_kv_size": "a lazy cache cannot overwrite old tokens, since any of them may come back; leave it out",
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
    **options: Any,
) -> Generator[LazyResponse, None, None]:
    """Generate text piece by piece.

    Args:
        prompt: text, or token ids. With a `prompt_cache` it continues the conversation, as a follow-up question.
        max_tokens: most tokens to generate; -1 for no limit.
        options: of `generate_step`; and kv_bits, kv_group_size, quantized_kv_start and aux_bits, which say for this
            conversation what they say in `LazyConfig`.

    Yields:
        mlx-lm's `GenerationResponse` with a `lazy` property, see `LazyStats`.

    Raises:
        PromptError: the prompt is empty.
        UsageError: an option that a lazy cache cannot serve.
        TooLargeError: the prompt would take more memory than it may, or the device is full; while the prompt is read,
            the cache is as it was before.
        Cancelled: by `on_progress`; the cache is as it was before, but for what the options say of how it is kept.
    """
    check_request(max_tokens, options)
    tokens = model.ranks.decided("prompt", lambda: encode(tokenizer, prompt))
    cache = conversation(model, options)
    tail = template_tail(tokenizer, tokens)
    steps = generate_step(tokens, model, prompt_cache=cache, tail=tail, max_tokens=max_tokens, **options)
    detokenizer, prompt_tps = tokenizer.detokenizer, 0.0
    with WIRED.held(), closing(model.ranks.while_wanted(steps)) as wanted:
        start = time.perf_counter()
        for n, (token, logprobs) in enumerate(wanted, 1):
            if n == 1:
                prompt_tps = len(tokens) / (time.perf_counter() - start)
                start = time.perf_counter()
            stopped = token in tokenizer.eos_token_ids
            ended = stopped or n == max_tokens
            if not stopped:
                detokenizer.add_token(token)
            if ended:
                detokenizer.finalize()
            yield LazyResponse(
                text=detokenizer.last_segment,
                token=token,
                logprobs=logprobs,
                from_draft=False,
                prompt_tokens=len(tokens),
                prompt_tps=prompt_tps,
                generation_tokens=n,
                generation_tps=n / (time.perf_counter() - start),
                peak_memory=mx.get_peak_memory() / 1e9,
                finish_reason=("stop" if stopped else "length") if ended else None,
                cache=cache[0],
            )
            if ended:
                break


def conversation(model: Model, options: dict[str, Any]) -> list[LazyCache]:
    """The cache to go on with, or a new one, kept in as few bits as the options say."""
    cache = options.pop("prompt_cache", None) or model.make_cache()
    given = {name: options.pop(name, None) for name in STORAGE}
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        cache[0].keep_as(model.resolve(replace(cache[0].config, **given)))
    return cache


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_request(max_tokens: object, options: dict[str, Any]) -> None:
    """Refuse what makes no sense or a lazy cache cannot serve; drop such options where they ask for nothing.

    Raises:
        UsageError: the message names the option.
    """
    if not _is_whole(max_tokens) or max_tokens == 0 or max_tokens < -1:
        raise UsageError(f"max_tokens: must be a whole number of at least 1, or -1 for no limit, got {max_tokens!r}")
    size, memory = options.get("prefill_step_size", 1), options.get("max_memory")
    if not _is_whole(size) or not 1 <= size <= MOST:
        raise UsageError(f"prefill_step_size: must be a whole number from 1 to {MOST}, got {size!r}")
    if memory is not None and not (_is_whole(memory) and memory > 0):
        raise UsageError(f"max_memory: must be a whole number of bytes above 0, or None, got {memory!r}")
    for name, reason in REFUSED.items():
        if options.pop(name, None) is not None:
            raise UsageError(f"{name}: {reason}")


def generate_step(
    prompt: Sequence[int] | mx.array,
    model: Model,
    *,
    max_tokens: int = 256,
    sampler: Sampler | None = None,
    logits_processors: list[LogitsProcessor] | None = None,
    prompt_cache: list[LazyCache] | None = None,
    prefill_step_size: int = STEP_SIZE,
    max_memory: int | None = None,
    on_progress: OnProgress | None = None,
    prompt_progress_callback: Callable[[int, int], None] | None = None,
    tail: int = 0,
    on_step: OnStep | None = None,
) -> Generator[tuple[int, mx.array], None, None]:
    """Generate token ids, as mlx-lm's function of this name does.

    Args:
        sampler: from log probabilities `(1, V)` to a token `(1,)`; greedy by default.
        logits_processors: from the tokens of this prompt and its answer so far `(L,)` and logits `(1, V)` to logits;
            of a conversation's past they see nothing.
        prompt_cache: of `model.make_cache()`; updated in place.
        prefill_step_size: tokens computed at a time in prefill, in every stage; bounds the peak memory.
        max_memory: bytes that may be taken, weights included; None is what the device recommends.
        on_progress: called with how far the prompt has been read, see `Progress`; returning False cancels.
        prompt_progress_callback: the same for mlx-lm's users: called with the tokens done, and their number.
        tail: how many of the prompt's last tokens are the chat template's.
        on_step: called with every step, see `OnStep`; the device may not be done with it yet.

    Yields:
        A token, and its log probabilities `(V,)`.
    """
    cache, prompt = prompt_cache or model.make_cache(), token_ids(prompt)
    sampler = sampler or greedy_sampler
    history = mx.array(prompt if logits_processors else [])  # nobody else looks at it

    def report(progress: Progress) -> bool | None:
        if prompt_progress_callback is not None:
            prompt_progress_callback(progress.processed - progress.cache, progress.total - progress.cache)
        return None if on_progress is None else on_progress(progress)

    def sample(logits: mx.array, taken: Sequence[int] | mx.array) -> tuple[mx.array, mx.array]:
        for processor in logits_processors or []:
            logits = processor(history, logits)
        logprobs = logits - mx.logsumexp(logits, keepdims=True)
        token = sampler(logprobs) if model.ranks.size == 1 else model.ranks.first(sampler(logprobs))
        mx.async_eval(token, logprobs)
        if on_step is not None:
            on_step(cache[0], taken, token)
        return token, logprobs.squeeze(0)

    def step(token: mx.array) -> tuple[mx.array, mx.array]:
        nonlocal history
        if logits_processors:
            history = mx.concatenate([history, token])
        with mx.stream(generation_stream):
            logits = model(token[None], cache=cache)
            assert logits is not None
            return sample(logits[:, -1], token)

    if on_step is not None:
        on_step(cache[0], (), None)
    limits, held = Limits(prefill_step_size, max_memory), cache[0].offset
    logits = prefill(model, prompt, cache, tail=tail, limits=limits, on_progress=report)
    if logits is None or max_tokens == 0:
        mx.eval(logits, cache[0].state)
        return
    with refused_if_full(model, cache[0].config, len(prompt), held, prefill_step_size):
        with ENDING.waits():
            with mx.stream(generation_stream):
                token, logprobs = sample(logits, prompt)
                mx.async_eval(cache[0].state)  # behind the token: what was left behind is put in order for later ones
            chosen = to_int(token)
        yield chosen, logprobs
        mx.clear_cache()
        with ENDING.waits():
            n, following = 1, step(token)
        while n != max_tokens:
            with ENDING.waits():
                (token, logprobs), n = following, n + 1
                following = step(token)  # keeps the device busy while this token is read
                chosen = to_int(token)
            yield chosen, logprobs
            if n % 256 == 0:
                mx.clear_cache()


def to_int(token: Integer[mx.array, " 1"]) -> int:
    """A sampled token as a number (waits for the device)."""
    return int(np.array(token)[0])


def generate(model: Model, tokenizer: TokenizerWrapper, prompt: str | mx.array | Sequence[int], **options: Any) -> str:
    """Generate a whole answer; the arguments are those of `stream_generate`."""
    return "".join(response.text for response in stream_generate(model, tokenizer, prompt, **options))
