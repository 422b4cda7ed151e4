"""A prompt that is read once for all configurations: behind any first cut, everything up to it is the same."""

from collections.abc import Collection

import mlx.core as mx
from jaxtyping import Integer

from ..cache.conversation import LazyCache
from ..cache.rows import RowBuffer
from ..config import LazyConfig
from ..engine.links import by_token, query_buffer
from ..engine.model import Model
from ..engine.stages import last_rows, run_stage
from ..eval.policies.engine import EngineConversation
from ..nn.loop import View
from ..nn.windows import scoring_layer

WIDEST = 128  # the widest query window that can be served


class SharedPrompt:
    """A prompt without its last token, read through as many layers as were asked for."""

    def __init__(self, model: Model, tokens: Integer[mx.array, "1 L"]):
        self.model, self.L = model, tokens.shape[1] - 1
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
            x, rows = run_stage(self.model, self.by_layer, number, self.hidden[-1], View(0, mask, span))
            self.hidden.append(x)
            self.queries.append(last_rows(None, rows.queries, WIDEST))
            self.prompt_queries.append(query_buffer(self.model.query_size))
            self.prompt_queries[-1].write(by_token(rows.queries), 0, self.L + 1)
            mx.eval(x, self.queries[-1], self.prompt_queries[-1].parts)

    def cache(self, config: LazyConfig) -> LazyCache:
        """A conversation that has read the prompt up to its last token, as if `config` had been there all along."""
        depth = config.cuts[0].layer if config.cuts else self.layers
        self._go_on(depth)
        cache = LazyCache(config, self.layers)
        cache.expect(self.L, complete=False)
        cache.begin(self.L)
        cache.stages[0] = self.by_layer.stages[0].fork()
        cache.stages[0].layers = [stage.fork().layers[0] for stage in self.by_layer.stages[:depth]]
        if config.cuts:
            cache.aux.leave(self.hidden[depth], 0, ahead=1)
            scoring = scoring_layer(self.model.windows, 0, depth)
            cache.queries = last_rows(None, self.queries[scoring], config.window)
            cache.prompt_queries = self.prompt_queries[scoring].fork() if config.links else cache.prompt_queries
        return cache

    @property
    def nbytes(self) -> int:
        return self.by_layer.nbytes + sum(a.nbytes for a in [*self.hidden, *self.queries, *self.prompt_queries])


class Continued(EngineConversation):
    """A conversation that has read a prompt up to its last token, which is all that `read` takes in."""

    def __init__(self, shared: SharedPrompt, config: LazyConfig, stop: Collection[int]):
        super().__init__(shared.model, config, stop)
        self.cache = [shared.cache(config)]

    def read(self, tokens, tail):
        self.cache[0].expect(1, tail=tail)
        logits = self.model(mx.array([tokens[-1:]]), cache=self.cache)
        assert logits is not None  # the prompt is complete
        return logits[:, -1]
