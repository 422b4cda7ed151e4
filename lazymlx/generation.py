"""`stream_generate` and `generate`: mlx-lm's own loop around the staged model.

The loop feeds a prompt in chunks and its last token alone; the cache is told the prompt's length beforehand, so that
selection happens when the question is complete, and the last chunk is computed together with the last token.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import GenerationResponse
from mlx_lm.generate import stream_generate as mlx_lm_stream_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .cache import LazyCache
from .errors import PromptError, UsageError
from .model import Model
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
    **options: Any,
) -> Generator[LazyResponse, None, None]:
    """Generate text piece by piece.

    Args:
        prompt: text, or token ids. With a `prompt_cache` it continues the conversation, as a follow-up question.
        prompt_cache: of `model.make_cache()`; updated in place.
        prefill_step_size: tokens computed at a time in prefill, in every stage; bounds the peak memory.
        options: as in `mlx_lm.stream_generate`: sampler, logits_processors, prompt_progress_callback, ...

    Yields:
        mlx-lm's `GenerationResponse` with a `lazy` property, see `LazyStats`.

    Raises:
        PromptError: the prompt is empty.
        UsageError: an option that a lazy cache cannot serve.
    """
    for name, reason in REFUSED.items():
        if options.pop(name, None) is not None:
            raise UsageError(f"{name}: {reason}")
    if prefill_step_size < 1:
        raise UsageError(f"prefill_step_size: must be at least 1, got {prefill_step_size}")
    tokens = encode(tokenizer, prompt)
    prompt_cache = model.make_cache() if prompt_cache is None else prompt_cache
    prompt_cache[0].expect(len(tokens), tail=template_tail(tokenizer, tokens), step_size=prefill_step_size)
    responses = mlx_lm_stream_generate(
        model,
        tokenizer,
        tokens,
        max_tokens,
        prompt_cache=prompt_cache,
        prefill_step_size=prefill_step_size,
        **options,
    )
    for response in responses:
        known = {f.name: getattr(response, f.name) for f in fields(response)}
        yield LazyResponse(**known, cache=prompt_cache[0])


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
