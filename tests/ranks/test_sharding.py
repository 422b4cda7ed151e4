"""A model split over ranks beside the whole one: the same sets and the same greedy answers, on every rank.

Sums over ranks are rounded in another way, so logits are compared within a tolerance; no choice here is a near tie.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from together import together
from zoo import CONFIGS, pair

from lazymlx.bench.models import random_maps
from lazymlx.cache.undo import Mark
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.errors import ModelError
from lazymlx.generation import generate_step
from lazymlx.nn.sharding import check_splits, shard
from lazymlx.ranks.group import ALONE, Ranks

CUTS = "2:0.5,4:0.25"
SMALL = {"min_tokens": 0, "round_to": 1, "window": 4, "pool": 3, "sink": 2, "recent": 4, "links": 4, "revive": 2}
TOLERANCE = 1e-4
RNG = np.random.default_rng(1)
PROMPT, QUESTION, OTHER = ([int(t) for t in RNG.integers(64, size=n)] for n in (50, 9, 7))
PLAIN = {"gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3", "seed_oss", "smollm3"}


def part_of(whole: Model, ranks: Ranks) -> Model:
    """A rank's part of a model."""
    model = Model(whole.args)
    bits = [module.bits for module in whole.modules() if isinstance(module, nn.QuantizedLinear)]
    if bits:
        nn.quantize(model, group_size=32, bits=bits[0])
    model.load_weights(tree_flatten(whole.parameters()))
    shard(model, ranks)
    model.join()
    return model


def llama(bits: int | None = None, **changes: int) -> Model:
    """Larger heads than the zoo's, as packing wants them."""
    args = pair("llama")[1].args
    sizes = {"hidden_size": 128, "head_dim": 64, "num_attention_heads": 4, "intermediate_size": 128, **changes}
    model = Model(type(args)(**{**vars(args), **sizes}))
    rng = np.random.default_rng(2)
    whole = tree_flatten(model.parameters())
    model.load_weights([(name, mx.array(rng.normal("norm" in name, 0.15, w.shape), mx.float32)) for name, w in whole])
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
    return model


def conversation(config: LazyConfig, model: Model) -> list:
    """A prompt, an answer, a question and its answer, undone, another one: what was chosen at each step."""
    [cache], said = model.make_cache(config), []

    def step(tokens: list[int], count: int) -> None:
        answer = [token for token, _ in generate_step(tokens, model, prompt_cache=[cache], max_tokens=count)]
        sets = [sorted(np.array(stage.positions[: stage.filled]).tolist()) for stage in cache.stages]
        said.append((answer, sets, cache.turn.kept, cache.turn.revived))

    step(PROMPT, 5)
    mark = Mark(cache)
    step(QUESTION, 3)
    mx.eval(cache.state)
    mark.seal(cache)
    mark.restore(cache)
    step(OTHER, 5)
    return [*said, *(np.array(rows) for rows in cache.aux.rows.parts), np.array(cache.aux.depth)]


def check_alike(
    monkeypatch: pytest.MonkeyPatch,
    whole: Model,
    size: int,
    do: Callable[[Model], list],
    maps: bool = False,
    tolerance: float = TOLERANCE,
) -> None:
    """The same on every rank bit by bit, and as without ranks but for rounding."""

    def run(ranks: Ranks) -> list:
        model = part_of(whole, ranks)
        if maps:
            model.look_with(random_maps(model, [2, 4]))
        return do(model)

    alone, *parts = run(ALONE), *together(size, monkeypatch, run)
    for got, first in zip(alone, parts[0], strict=True):
        if isinstance(got, np.ndarray) and got.dtype.kind == "f":
            np.testing.assert_allclose(first, got, atol=tolerance, rtol=1e-3)
        else:
            np.testing.assert_equal(first, got)
    for part in parts[1:]:
        np.testing.assert_equal(part, parts[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_is_split_or_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Logits of the dense model; what is refused says so before a weight is read."""
    whole = pair(name)[1]
    try:
        check_splits(whole, 2)
    except ModelError as error:
        assert "cannot be split" in str(error) and whole.model_type not in PLAIN
    else:
        check_alike(monkeypatch, whole, 2, lambda model: [np.array(model(mx.array([PROMPT])))])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama, tied, biased", {}),
        ("llama, windows", {"schedule": "3:0.5"}),
        ("qwen3", {"reduce": "max"}),
        ("qwen2", {"revive": None, "attend": "selected"}),
        ("gemma2", {"links": 0}),
    ],
    ids=str,
)
def test_a_conversation_is_the_same(monkeypatch: pytest.MonkeyPatch, name: str, change: dict) -> None:
    """There are two key heads here, which two queries share."""
    config = LazyConfig(**{"schedule": CUTS, **SMALL, **change})
    check_alike(monkeypatch, pair(name)[1], 2, partial(conversation, config))


def test_four_ranks_and_packed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = llama(4, num_key_value_heads=4)
    check_alike(monkeypatch, whole, 4, partial(conversation, LazyConfig(CUTS, **SMALL)))


def test_four_ranks_and_packed_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing makes a difference of the last digit one of a code, so what follows is compared less strictly."""
    config = LazyConfig(CUTS, **SMALL, kv_bits=8, quantized_kv_start=0)
    check_alike(monkeypatch, llama(num_key_value_heads=4), 4, partial(conversation, config), tolerance=0.1)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_maps_are_split_by_heads(monkeypatch: pytest.MonkeyPatch, reduce: str) -> None:
    config = LazyConfig(CUTS, **SMALL, lookahead=8, reduce=reduce)
    check_alike(monkeypatch, llama(num_key_value_heads=2), 2, partial(conversation, config), maps=True)
