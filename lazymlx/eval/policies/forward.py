"""A model over tokens at any rising positions: what the engine's stages do, without stages."""

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Integer

from ...cache.rows import unpacked
from ...cache.stage import StageCache
from ...config import STEP_SIZE
from ...engine.model import Model
from ...nn.loop import View, run_layers


class Forward:
    """A model's first layers (all, if not said otherwise), with the keys and values of what they have read."""

    def __init__(self, model: Model, layers: int | None = None):
        self.model = model
        self.layers = model.layers[:layers]
        self.stage = StageCache(len(self.layers))
        self.queries: list[mx.array] = []  # of the newest tokens read, a layer each, (1, H, L, D_h)

    def read(self, tokens: Integer[mx.array, " L"], positions: Integer[np.ndarray, " L"]) -> Float[mx.array, "1 M D"]:
        """Take in tokens; the last layer's output for the newest of them, `STEP_SIZE` at most."""
        x = mx.zeros((1, 0, 0))
        for start in range(0, len(positions), STEP_SIZE):
            mx.eval(x)
            x = self._read(tokens[start : start + STEP_SIZE], positions[start : start + STEP_SIZE])
        return x

    def logits(self, tokens: Integer[mx.array, " L"], positions: Integer[np.ndarray, " L"]) -> Float[mx.array, "1 V"]:
        """Take in tokens; logits of the last one."""
        return self.model.family.answer(self.model, self.read(tokens, positions)[:, -1:])[:, -1]

    def keys(self, layer: int) -> Float[mx.array, "H_kv S D_h"]:
        """What a layer's queries are compared with."""
        return unpacked(self.stage.layers[layer].read(0, self.stage.filled)[0])[0]

    def _read(self, tokens: mx.array, positions: np.ndarray) -> mx.array:
        first, last = int(positions[0]), int(positions[-1])
        at = mx.array(positions.astype(np.int32))
        span = self.stage.append(at, last + 1)
        given = first if last - first + 1 == len(positions) else at  # neighbours are rotated faster
        x, mask = self.model.embedded(tokens[None]), "causal" if len(positions) > 1 else None
        layers = range(len(self.layers))
        windows = self.model.windows[: len(self.layers)]
        x, rows = run_layers(self.layers, windows, x, View(given, mask, span), self.stage, returned=layers)
        self.queries = [rows[index].queries for index in layers]
        return x
