"""Attention that MLX's fused kernel does not do, against NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from lazymlx.cache.masks import causal
from lazymlx.cache.rows import RowBuffer
from lazymlx.nn.attend import Shown, attend_few, attend_in_parts, concatenated, probabilities
from lazymlx.nn.backend import FUSED, SPLIT, Ways, trying


@pytest.mark.parametrize("dtype, atol", [(mx.float32, 1e-5), (mx.float16, 1e-2), (mx.bfloat16, 6e-2)])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("L", [1, 3, 8])
def test_few_rows_see_what_the_mask_shows(L, heads, kv_heads, dtype, atol):
    rng = np.random.default_rng(L)
    queries, keys, values = (rng.normal(size=(1, h, n, 16)) for h, n in ((heads, L), (kv_heads, 11), (kv_heads, 11)))
    mask = rng.random((L, 11)) < 0.5
    mask[:, 4] = True  # every row sees something
    arrays = (mx.array(part, dtype) for part in (queries, keys, values))
    out, logits = attend_few(*arrays, scale=0.25, mask=mx.array(mask))
    keys, values = (np.repeat(part, heads // kv_heads, axis=1) for part in (keys, values))
    expected = np.where(mask, 0.25 * queries @ keys.swapaxes(-1, -2), -np.inf)
    weights = np.exp(expected - expected.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    assert out.dtype == logits.dtype == dtype
    np.testing.assert_allclose(np.array(logits.astype(mx.float32)), expected, atol=atol)
    np.testing.assert_allclose(np.array(out.astype(mx.float32)), weights @ values, atol=atol)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("S", [11, 16])
def test_probabilities_of_a_single_row_too(L, S, heads, kv_heads):
    rng = np.random.default_rng(L)
    queries, keys = (rng.normal(size=(1, h, n, 16)) for h, n in ((heads, L), (kv_heads, S)))
    mask = np.arange(S) < 7
    found = probabilities(mx.array(queries), mx.array(keys), mx.array(np.tile(mask, (L, 1))))
    weights = np.where(mask, np.exp(queries @ np.repeat(keys, heads // kv_heads, axis=1).swapaxes(-1, -2)), 0)
    np.testing.assert_allclose(np.array(found), weights / weights.sum(axis=-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("ways", [SPLIT, FUSED], ids=["unpacked", "as packed"])
@pytest.mark.parametrize(("dtype", "atol"), [(mx.float32, 1e-5), (mx.float16, 4e-3), (mx.bfloat16, 3e-2)])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize(("kv_heads", "rows"), [(2, 5), (8, 1)])
def test_attention_to_parts_is_attention_to_all_of_them(
    ways: Ways, dtype: mx.Dtype, atol: float, softcap: float | None, bits: int | None, kv_heads: int, rows: int
) -> None:
    """In float64 by NumPy, where the first part may be packed and slots are hidden."""
    mx.random.seed(3)
    queries = mx.random.normal((1, 8, rows, 64)).astype(dtype)
    held = RowBuffer(2)
    if bits is not None:
        held.pack(bits, 64)
    held.write(mx.random.normal((1, kv_heads, 17, 64)).astype(dtype), 0, 17)
    part = mx.random.normal((1, kv_heads, rows, 64)).astype(dtype)
    parts = [(held.read(0, 17), held.read(0, 17)), (part, part)]
    mask = causal(mx.arange(17, 17 + rows), mx.arange(17 + rows))
    with trying(ways):
        out, found = attend_in_parts(queries, parts, 0.2, Shown(mask), softcap=softcap)
    keys = np.repeat(np.array(concatenated(parts)[0].astype(mx.float32), np.float64)[0], 8 // kv_heads, axis=0)
    logits = 0.2 * np.array(queries.astype(mx.float32), np.float64)[0] @ keys.swapaxes(-1, -2)
    logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
    share = np.exp(np.where(np.array(mask), logits, -np.inf))
    share /= share.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.array(found[0].astype(mx.float32)), share, atol=atol)
    np.testing.assert_allclose(np.array(out[0].astype(mx.float32)), share @ keys, atol=8 * atol)
