"""What a configuration costs in quality: lazy against dense, on one prompt after the other, without labels.

The loss on a prompt is whether the greedy answer's first tokens differ from the dense model's. The lazy model is fed
the dense answer and stopped at the first token that it would have chosen otherwise; until then the two answers are
the same, so this is the comparison of both greedy answers, and no approximation of it. Beside it stands the
divergence of the first token's distribution, KL(dense || lazy) in nats, which tells near misses from exact copies.

A prompt is read once for all configurations, `Reading`: behind any first cut everything up to it is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Integer
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..cache.conversation import LazyCache
from ..cache.rows import RowBuffer
from ..config import LazyConfig
from ..engine.links import by_token, query_buffer
from ..engine.model import Model
from ..engine.stages import last_rows, run_stage
from ..generation import encode, template_tail
from ..nn.windows import scoring_layer
from .prompts import Prompt

WIDEST = 128  # the widest query window that a reading can serve
MOST_KEPT = 1 << 30  # bytes of readings that are kept for the next candidates


@dataclass(frozen=True)
class Outcome:
    """One configuration on one prompt."""

    differs: bool
    kl: float
    tokens: int = 0  # of the prompt
    kept: tuple[int, ...] = ()  # of them, behind each cut


@dataclass(frozen=True)
class Dense:
    """What the dense model says: its greedy answer, and the log-probabilities of the first token."""

    answer: tuple[int, ...]
    first: np.ndarray


class Reading:
    """A prompt without its last token, read through as many layers as were asked for."""

    def __init__(self, model: Model, tokens: Integer[mx.array, "1 L"], tail: int):
        self.model, self.tail, self.L = model, tail, tokens.shape[1] - 1
        self.last = tokens[:, -1:]
        self.layers = len(model.layers)
        every = LazyConfig(tuple((layer, 1.0) for layer in range(1, self.layers)))
        self.by_layer = LazyCache(every, self.layers)  # a stage a layer
        # the input of every layer read, and the output of the last
        self.hidden = [model.family.embedded(model, tokens[:, :-1], None)]
        self.queries: list[mx.array] = []  # of every layer read, the newest
        self.prompt_queries: list[RowBuffer] = []  # and of all tokens

    def _go_on(self, depth: int) -> None:
        """Read on, up to layer `depth`."""
        positions = mx.arange(self.L, dtype=mx.int32)
        for number in range(len(self.queries), depth):
            span = self.by_layer.stages[number].append(positions, self.L)
            mask = "causal" if self.L > 1 else None
            x, asking = run_stage(self.model, self.by_layer, number, self.hidden[-1], 0, mask, span)
            self.hidden.append(x)
            self.queries.append(last_rows(None, asking.queries, WIDEST))
            self.prompt_queries.append(query_buffer(self.model.query_size))
            self.prompt_queries[-1].write(by_token(asking.queries), 0, self.L + 1)
            mx.eval(x, self.queries[-1], self.prompt_queries[-1].parts)

    def cache(self, config: LazyConfig) -> LazyCache:
        """A conversation that has read the prompt up to its last token, as if `config` had been there all along."""
        depth = config.cuts[0].layer if config.cuts else self.layers
        self._go_on(depth)
        cache = LazyCache(config, self.layers)
        cache.expect(self.L, complete=False)
        cache.begin(self.L)
        cache.stages[0] = self.by_layer.stages[0].fork()
        cache.stages[0].pools = [stage.fork().pools[0] for stage in self.by_layer.stages[:depth]]
        if config.cuts:
            cache.aux.leave(self.hidden[depth], 0, ahead=1)
            scoring = scoring_layer(self.model.windows, 0, depth)
            cache.queries = last_rows(None, self.queries[scoring], config.window)
            cache.prompt_queries = self.prompt_queries[scoring].fork() if config.links else cache.prompt_queries
        return cache

    @property
    def nbytes(self) -> int:
        return self.by_layer.nbytes + sum(a.nbytes for a in [*self.hidden, *self.queries, *self.prompt_queries])

    def start(self, config: LazyConfig) -> tuple[LazyCache, Float[mx.array, " V"]]:
        """Take in the last token: the conversation, and the logits of the answer's first token."""
        cache = self.cache(config)
        cache.expect(1, tail=self.tail)
        return cache, self.follow(cache, self.last)

    def follow(self, cache: LazyCache, token: Integer[mx.array, "1 1"]) -> Float[mx.array, " V"]:
        """The logits behind one more token."""
        logits = self.model(token, cache=[cache])
        assert logits is not None
        return logits[0, -1].astype(mx.float32)


class Meter:
    """Measures configurations on prompts. What the dense model says to a prompt is found once and kept."""

    def __init__(self, model: Model, tokenizer: TokenizerWrapper, answer_tokens: int = 12):
        self.model, self.tokenizer, self.answer_tokens = model, tokenizer, answer_tokens
        self.ends = frozenset(tokenizer.eos_token_ids)
        self.dense: dict[Prompt, Dense] = {}
        self.readings: dict[Prompt, Reading] = {}

    def __call__(self, prompt: Prompt, configs: Sequence[LazyConfig]) -> list[Outcome]:
        """The outcome of each configuration on a prompt."""
        reading = self._reading(prompt)
        if prompt not in self.dense:
            self.dense[prompt] = self._say(reading)
        return [self._compare(reading, self.dense[prompt], config) for config in configs]

    def _reading(self, prompt: Prompt) -> Reading:
        if prompt in self.readings:
            return self.readings[prompt]
        tokens = chat_tokens(self.tokenizer, prompt.text)
        reading = Reading(self.model, mx.array([tokens]), template_tail(self.tokenizer, tokens))
        if sum(each.nbytes for each in self.readings.values()) < MOST_KEPT:
            self.readings[prompt] = reading
        return reading

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _say(self, reading: Reading) -> Dense:
        cache, logits = reading.start(LazyConfig.dense())
        first, answer = np.array(log_softmax(logits)), [int(logits.argmax())]
        while len(answer) < self.answer_tokens and answer[-1] not in self.ends:
            answer.append(int(reading.follow(cache, mx.array([answer[-1:]])).argmax()))
        return Dense(tuple(answer), first)

    def _compare(self, reading: Reading, dense: Dense, config: LazyConfig) -> Outcome:
        cache, logits = reading.start(config)
        log_p, log_q = mx.array(dense.first), log_softmax(logits)
        kl = max(float((mx.exp(log_p) * (log_p - log_q)).sum()), 0.0)
        for i, token in enumerate(dense.answer, 1):
            if int(logits.argmax()) != token:
                return Outcome(True, kl, reading.L + 1, cache.turn.kept)
            if i < len(dense.answer):
                logits = reading.follow(cache, mx.array([[token]]))
        return Outcome(False, kl, reading.L + 1, cache.turn.kept)


def log_softmax(logits: Float[mx.array, " V"]) -> Float[mx.array, " V"]:
    return logits - mx.logsumexp(logits)


def chat_tokens(tokenizer: TokenizerWrapper, text: str) -> list[int]:
    """A user's turn as the model is used to it: in its chat template, if it has one."""
    if tokenizer.has_chat_template:
        messages = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True))
    return encode(tokenizer, f"{text}\nAnswer:")
