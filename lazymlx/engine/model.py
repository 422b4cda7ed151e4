"""`Model`: a network that can leave tokens behind, in the form that mlx-lm's loops call."""

from dataclasses import replace
from typing import Any

import mlx.core as mx
from jaxtyping import Float, Integer

from ..cache.conversation import LazyCache, OnRows
from ..cache.rows import check_packing
from ..config import STEP_SIZE, LazyConfig
from ..errors import StateError
from ..nn.compiling import Replay
from ..nn.families import Family
from ..nn.maps import Maps
from ..nn.network import Network
from ..nn.windows import resolved
from .advance import Advanced, Engine, advance


class Model(Network):
    """A causal language model that can be lazy. Without a cache it is the plain dense model.

    Args:
        args, family: see `Network`.
    """

    def __init__(self, args: Any, family: Family | None = None):
        super().__init__(args, family)
        self.lazy = LazyConfig()
        self.warm = False  # its kernels are compiled
        stretched = any(self.family.attention_of(layer).stretched for layer in self.layers)
        self.engine = Engine(Replay(), Replay(), stretched)

    def look_with(self, maps: Maps | None) -> None:
        """Look ahead with these maps from now on, at schedules whose cuts they all know; None: with none."""
        used = None if maps is None else maps.part(self.ranks).used_in(self.dtype)
        self.engine = replace(self.engine, maps=used)

    def make_cache(self, lazy: LazyConfig | None = None) -> list[LazyCache]:
        """An empty conversation, as mlx-lm's loops want it: a list, here with a single entry for all layers."""
        return [LazyCache(self.resolve(lazy or self.lazy), len(self.layers))]

    def resolve(self, lazy: LazyConfig) -> LazyConfig:
        """A configuration with its cuts for this model.

        Raises:
            ConfigError: the model cannot be cut there, or its rows not be packed.
        """
        config = resolved(lazy, self.windows)
        if config.kv_bits is not None:
            check_packing("kv_bits", self.head_size, config.kv_group_size)
        if config.aux_bits is not None:
            check_packing("aux_bits", self.hidden_size, config.kv_group_size)
        return config

    def __call__(
        self,
        inputs: Integer[mx.array, "B L"],
        cache: list[LazyCache] | None = None,
        input_embeddings: Float[mx.array, "B L D"] | None = None,
    ) -> Float[mx.array, "B T V"] | None:
        """Logits.

        Without a cache: for every token. With one: for the last token (T = 1), or None while the prompt is not
        complete; with an empty schedule and a prompt that was not announced, for every token.
        """
        x = self.embedded(inputs, input_embeddings)
        if cache is None:
            return self.answer(self.dense(x))
        if x.shape[0] != 1:
            raise StateError(f"a lazy cache holds one conversation, got a batch of {x.shape[0]}")
        x = self.advance(x, cache[0]).x
        return None if x is None else self.answer(x)

    def advance(
        self,
        x: Float[mx.array, "1 L D"],
        cache: LazyCache,
        *,
        rows_at_a_time: int = STEP_SIZE,
        report: OnRows | None = None,
    ) -> Advanced:
        """Take the embeddings of new tokens into the conversation.

        Args:
            rows_at_a_time: computed behind the first cut in prefill; bounds the peak memory.
            report: called with a prompt's rows, see `OnRows`.
        """
        step = cache.begin(x.shape[1], rows_at_a_time, report)
        return advance(self, self.engine, cache, step, x)
