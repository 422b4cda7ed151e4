"""Rows of which the last see keys beside those of their stage: one pass gives what two do, in every family."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import stock_model, tiny_args, twin_of
from zoo import CONFIGS, SEEING, pair

from lazymlx.cache.masks import causal
from lazymlx.cache.stage import StageCache
from lazymlx.engine.model import Model
from lazymlx.nn.attend import Shown
from lazymlx.nn.loop import Others, View, run_layers

CUT = 3
AT = mx.array([0, 2, 3, 7, 8, 11, 13, 20, 21, 22])  # of the rows; the last few ask
FILLED = mx.array([1, 4, 5, 6, 9, 10, 12, 14, 15, 16, 17, 18, 19])


@pytest.fixture(autouse=True, scope="module")
def uncompiled():
    """Compiling upstream's small functions takes longer than these tests."""
    mx.disable_compile()
    yield
    mx.enable_compile()


class Trial:
    """Rows that went through the layers behind a cut; `first` of them in a call of their own before the others."""

    def __init__(self, model: Model, first: int, asking: int, bits: int | None, ordered: bool, last_only: bool):
        self.model, self.ordered, self.last_only = model, ordered, last_only
        mx.random.seed(1)
        self.stage, self.keys = StageCache(len(model.layers) - CUT), self.made_up()
        for layer in self.stage.layers:
            if bits is not None:
                layer.pack(bits, 32)
        x = mx.random.normal((1, len(AT), model.hidden_size))
        parts = [slice(0, first), slice(first, len(AT))] if first else [slice(0, len(AT))]
        self.outs = [self.go(x[:, part], AT[part], part.stop - (len(AT) - asking)) for part in parts]

    def made_up(self) -> list[tuple[mx.array, mx.array]]:
        """Keys and values of the filled tokens, shaped as each layer's own."""
        found = []
        for layer in self.model.layers[CUT:]:
            own = self.model.family.attention_of(layer)
            _, keys, values = own.project(own, mx.zeros((1, 1, self.model.hidden_size)))
            shapes = [(1, part.shape[2], len(FILLED), part.shape[3]) for part in (keys, values)]
            found.append((mx.random.normal(shapes[0]), mx.random.normal(shapes[1])))
        return found

    def go(self, x: mx.array, at: mx.array, asking: int) -> mx.array:
        span = self.stage.append(at, int(AT[-1]) + 1)
        mask = "causal" if self.ordered else self.stage.visible(at, None)
        others = None
        if asking > 0:
            last = at[-asking:]
            seen = mx.concatenate([causal(last, FILLED), self.stage.visible(last, None)], axis=1)
            others = Others(FILLED, lambda index: [self.keys[index]], Shown(seen))
        view, layers, windows = View(at, mask, span, others=others), self.model.layers, self.model.windows
        out, self.rows = run_layers(
            layers[CUT:], windows[CUT:], x, view, self.stage, returned=(0,), last_only=self.last_only
        )
        return out


def assert_one_is_two(model: Model, asking: int, ordered: bool, bits: int | None = None) -> None:
    once = Trial(model, 0, asking, bits, ordered, last_only=False)
    twice = Trial(model, len(AT) - asking, asking, bits, ordered, last_only=False)
    expected = np.array(mx.concatenate(twice.outs, axis=1))
    atol = 2e-4 * np.abs(expected).max()
    np.testing.assert_allclose(np.array(once.outs[0]), expected, atol=atol)
    np.testing.assert_allclose(np.array(once.rows[0].probabilities), np.array(twice.rows[0].probabilities), atol=1e-5)
    last = Trial(model, 0, asking, bits, ordered, last_only=True)
    np.testing.assert_allclose(np.array(last.outs[0]), expected[:, -1:], atol=atol)


@pytest.mark.parametrize("ordered", [True, False], ids=["causal", "masked"])
@pytest.mark.parametrize("asking", [1, 4])
@pytest.mark.parametrize("name", [*CONFIGS, *SEEING])
def test_one_pass_is_two(name: str, asking: int, ordered: bool) -> None:
    assert_one_is_two(pair(name)[1], asking, ordered)


@pytest.mark.parametrize("ordered", [True, False], ids=["causal", "masked"])
def test_with_the_stage_in_few_bits_too(ordered: bool) -> None:
    assert_one_is_two(twin_of(stock_model(tiny_args(head_dim=32))), 4, ordered, bits=4)
