"""Few rows attend in two ways, one for each kind of device; what comes out is the same."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny import stock_model, tiny_args, twin_of

from lazymlx import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.nn.attend import attend_few, probabilities
from lazymlx.nn.backend import FUSED, PLAIN, SPLIT, Ways, serves_few, trying, ways

SHAPE = {"hidden_size": 64, "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
LAZY = LazyConfig("3:0.4", window=3, recent=2, min_tokens=0, round_to=4, revive=2, pool=3, kv_group_size=32)
TOKENS = np.random.default_rng(2).integers(64, size=46).tolist()


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args(**SHAPE)))


def talk(model: Model, config: LazyConfig, way: Ways) -> list[np.ndarray]:
    """A prompt, an answer and a follow-up: the logits of every step."""
    cache, logits = model.make_cache(config), []
    with trying(way):
        for start, stop in ((0, 30), *((at, at + 1) for at in range(30, 38)), (38, 46)):
            if stop - start > 1:
                cache[0].expect(stop - start)
            out = model(mx.array([TOKENS[start:stop]]), cache=cache)
            assert out is not None
            logits.append(np.array(out[0, -1]))
    assert cache[0].turn.revived
    return logits


@pytest.mark.parametrize("kv_bits", [None, 8])
@pytest.mark.parametrize("attend", ["computed", "selected"])
def test_a_conversation_is_the_same_both_ways(model: Model, attend: str, kv_bits: int | None) -> None:
    config = replace(LAZY, attend=attend, kv_bits=kv_bits, quantized_kv_start=0)
    for one, other in zip(talk(model, config, SPLIT), talk(model, config, FUSED), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_each_way_is_gone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = list[str]()

    def noted(*given, **options):
        gone.append("split")
        return attend_few(*given, **options)

    monkeypatch.setattr("lazymlx.nn.attention.attend_few", noted)
    talk(model, LAZY, FUSED)
    assert not gone
    talk(model, LAZY, SPLIT)
    assert gone


def test_one_row_and_two_of_it_give_the_same() -> None:
    queries, keys = mx.random.normal((1, 2, 1, 64)), mx.random.normal((1, 2, 16, 64))
    with trying(FUSED):
        once = probabilities(queries, keys)
    np.testing.assert_allclose(np.array(once), np.array(probabilities(queries, keys)), atol=1e-6)


def test_what_is_tried_ends_with_its_block() -> None:
    here = ways()
    with trying(FUSED):
        assert ways() == FUSED
    assert ways() == here == PLAIN  # tests run on a CPU


@pytest.mark.parametrize(
    ("rows", "heads", "kv_heads", "size", "served"),
    [
        (8, 32, 8, 128, True),  # Llama 3 8B, seven come back: 8 x 4 rows
        (8, 28, 4, 128, False),  # Qwen 2.5 7B: 8 x 7
        (4, 28, 4, 128, True),
        (8, 32, 32, 80, False),
        (8, 8, 4, 256, True),
    ],
)
def test_what_metal_s_fused_attention_serves(rows: int, heads: int, kv_heads: int, size: int, served: bool) -> None:
    assert serves_few(rows, heads, kv_heads, size) is served
