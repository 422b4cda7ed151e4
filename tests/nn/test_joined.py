"""Projections of the same rows as one product: where they may be joined, and when the parts take over again."""

from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers
from tiny import random_tokens, stock_model, tiny_args, twin_of
from zoo import pair as models

from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.nn.attend import FEW_ROWS
from lazymlx.nn.merged import Joined, alike, projected

NORMED = ["qwen3", "olmo2", "stablelm", "gemma3_text", "cohere", "exaone4", "hunyuan_v1_dense"]
QUANTISED = [(4, 64, "affine"), (8, 32, "affine"), (4, 32, "mxfp4")]


def pair(bias: bool = False) -> tuple[nn.Linear, nn.Linear]:
    mx.random.seed(0)
    return nn.Linear(64, 96, bias), nn.Linear(64, 32, bias)


@pytest.mark.parametrize("bias", [False, True])
def test_one_product_gives_what_the_parts_give(bias: bool) -> None:
    parts, x = pair(bias), mx.random.normal((1, 3, 64))
    apart = mx.concatenate([part(x) for part in parts], axis=-1)
    joined = Joined(parts)
    assert joined.serves(x, parts)
    assert mx.allclose(joined(x), apart, atol=1e-6)
    assert mx.allclose(mx.concatenate([part(x) for part in parts], axis=-1), apart, atol=1e-6)  # by their own names


@pytest.mark.parametrize(("bits", "group_size", "mode"), QUANTISED)
def test_quantised_parts_too(bits: int, group_size: int, mode: str) -> None:
    parts = [part.to_quantized(group_size, bits, mode) for part in pair()]
    x = mx.random.normal((1, 3, 64))
    apart = mx.concatenate([part(x) for part in parts], axis=-1)
    assert alike(parts)
    assert mx.allclose(Joined(parts)(x), apart, atol=1e-6)


def test_what_differs_is_not_joined() -> None:
    one, other = pair()
    assert alike([one, other])
    assert not alike([one, other.to_quantized(64, 4)])
    assert not alike([one.to_quantized(64, 4), other.to_quantized(64, 8)])
    assert not alike([one, pair(bias=True)[1]])
    other.set_dtype(mx.float16)
    assert not alike([one, other])


def test_many_rows_take_the_parts() -> None:
    parts = pair()
    joined = Joined(parts)
    assert joined.serves(mx.zeros((1, FEW_ROWS, 64)), parts)
    assert not joined.serves(mx.zeros((1, FEW_ROWS + 1, 64)), parts)


LINEAR = {
    "plain": lambda: nn.Linear(64, 96, bias=False),
    "biased": lambda: nn.Linear(64, 96),
    "quantised": lambda: nn.Linear(64, 96, bias=False).to_quantized(64, 4),
    "adapted": lambda: adapted(nn.Linear(64, 96, bias=False)),
}


def adapted(linear: nn.Linear) -> LoRALinear:
    lora = LoRALinear.from_base(linear, r=2)
    lora.lora_b = mx.random.normal(lora.lora_b.shape)
    return lora


@pytest.mark.parametrize("L", [1, 2, 20])
@pytest.mark.parametrize("kind", LINEAR)
def test_a_projection_is_added_to_what_is_there(kind: str, L: int) -> None:
    mx.random.seed(0)
    part, x, onto = LINEAR[kind](), mx.random.normal((1, L, 64)), mx.random.normal((1, L, 96))
    assert mx.allclose(projected(part, x, onto), onto + part(x), atol=1e-5)
    assert mx.array_equal(projected(part, x), part(x))


def test_several_rows_are_added_up_within_products(tmp_path: Path) -> None:
    """Twice a layer. A single row, whose product is another kernel, is added as ever."""
    model = twin_of(stock_model(tiny_args()))
    several, single = (sums(model(mx.array([tokens])), tmp_path) for tokens in ([1, 2, 3], [1]))
    assert several.in_products == 2 * len(model.layers) and single.in_products == 0
    assert single.beside - several.beside == 2 * len(model.layers)


class Sums(NamedTuple):
    """How often a computation adds two arrays, in norms and rotations too."""

    in_products: int
    beside: int


def sums(of: mx.array, folder: Path) -> Sums:
    mx.export_to_dot(str(folder / "graph.dot"), of)
    graph = (folder / "graph.dot").read_text()
    return Sums(graph.count('label ="AddMM"'), graph.count('label ="Add"'))


def one_token(model: Model) -> mx.array:
    cache = model.make_cache()
    cache[0].expect(20)
    model(mx.array([random_tokens(20)]), cache=cache)
    logits = model(mx.array([[7]]), cache=cache)
    assert logits is not None
    return logits


def test_new_weights_and_adapters_take_effect() -> None:
    stock = stock_model(tiny_args())
    ours, fresh = twin_of(stock), Model(stock.args)
    before = one_token(ours)
    changed = [(name, w * 1.1) for name, w in tree_flatten(stock.parameters())]
    ours.load_weights(changed)
    fresh.load_weights(changed)
    changed_too = one_token(ours)
    assert mx.array_equal(changed_too, one_token(fresh))
    assert not mx.allclose(changed_too, before, atol=1e-3)

    for model in (ours, fresh):
        mx.random.seed(1)
        linear_to_lora_layers(model, 2, {"rank": 2, "scale": 20.0, "dropout": 0.0})
        for module in model.modules():
            if "lora_b" in module:
                module["lora_b"] = mx.random.normal(module["lora_b"].shape)
    adapted = one_token(ours)
    assert mx.array_equal(adapted, one_token(fresh))


@pytest.mark.parametrize("name", NORMED)
def test_norms_may_come_between_the_products_and_the_rotation(name: str) -> None:
    """Queries and keys are normalised head by head or all together, behind one product as behind three."""
    _, model = models.__wrapped__(name)  # its own, not the one that other tests share
    apart = some_answer(model)
    model.join()
    attentions = [model.family.attention_of(layer) for layer in model.layers]
    assert all(attention.joined is not None for attention in attentions)
    calls: list[int] = []
    for attention in attentions:
        attention.joined.linear = Counted(attention.joined.linear, calls)
    assert mx.allclose(some_answer(model), apart, atol=1e-4)
    assert len(calls) >= 4 * len(attentions)


class Counted(nn.Module):
    """A layer, and how often it was used."""

    def __init__(self, layer: nn.Module, calls: list[int]):
        super().__init__()
        self.layer, self.calls = layer, calls

    def __call__(self, x: mx.array) -> mx.array:
        self.calls.append(x.shape[1])
        return self.layer(x)


def some_answer(model: Model) -> mx.array:
    """Logits of decode steps some of which bring tokens back."""
    cache = model.make_cache(LazyConfig(((3, 0.5),), min_tokens=0))
    cache[0].expect(90)
    model(mx.array([random_tokens(90, 60)]), cache=cache)
    logits = [model(mx.array([[7 + step]]), cache=cache) for step in range(4)]
    return mx.concatenate([each for each in logits if each is not None], axis=1)
