"""Maps, as they are applied and as they lie on the disk."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import stock_model, tiny_args, twin_of

from lazymlx.errors import MapsError
from lazymlx.nn.maps import R2, CutMap, Factor, LayerMap, Maps
from lazymlx.sealed import write_sealed

D, LAYERS, HEADS, N = 64, 6, 2, 32  # N: keys and values of a token in a layer


@pytest.fixture(scope="module")
def model():
    return twin_of(stock_model(tiny_args(hidden_size=D)))


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def random_maps(cut: int = 3, bits: int | None = None, low: bool = False) -> Maps:
    layers = []
    for layer in range(cut, LAYERS):
        full = [normal(N, D, seed=layer)]
        parts = [normal(4, D, seed=layer), normal(N, 4, seed=layer + 9)] if low else full
        layers.append(LayerMap(tuple(Factor.of(part, bits) for part in parts), normal(N, seed=layer + 20)))
    r2 = tuple(R2(0.9, 0.5 + n / 100) for n in range(len(layers)))
    scale = mx.array(2.0 ** np.random.default_rng(cut).integers(-3, 4, D).astype(np.float32))
    return Maps("this one", {cut: CutMap(cut, (HEADS,) * len(layers), tuple(layers), scale, r2)}, bits)


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("bits", [None, 8])
def test_predicts_what_the_matrices_say(bits, low):
    """States of any size: what counts is their direction."""
    cut = random_maps(bits=bits, low=low).used_in(mx.float32).cuts[3]
    x = 7 * normal(1, 5, D)
    keys, values = cut.predict(4, x)
    scaled = np.array(x[0]) / np.sqrt((np.array(x[0]) ** 2).mean(axis=-1, keepdims=True))
    matrix = np.diag(np.array(cut.scale))
    for factor in cut.layers[1].factors:
        matrix = matrix @ np.array(factor.full(), np.float64).T
    expected = (scaled @ matrix + np.array(cut.layers[1].bias)).reshape(5, 2, HEADS, -1).transpose(1, 2, 0, 3)
    assert keys.shape == values.shape == (1, HEADS, 5, N // 2 // HEADS)
    np.testing.assert_allclose(np.array(mx.concatenate([keys, values])), expected, rtol=1e-3, atol=1e-3)


def test_packed_matrices_give_the_same_packed_and_unpacked():
    maps, x = random_maps(bits=8), normal(1, 5, D).astype(mx.float16)
    packed = maps.used_in(mx.float16).cuts[3].predict(5, x)
    unpacked = maps.used_in(mx.float32).cuts[3].predict(5, x.astype(mx.float32))
    for one, other in zip(packed, unpacked, strict=True):
        assert one.dtype == mx.float16
        np.testing.assert_allclose(np.array(one, np.float32), np.array(other), atol=0.2)


def test_eight_bits_are_close_to_sixteen():
    exact, packed = random_maps(), random_maps(bits=8)
    whole, part = (np.array(maps.cuts[3].layers[0].factors[0].full(), np.float32) for maps in (exact, packed))
    assert 0 < np.abs(whole - part).max() < 0.02
    assert packed.nbytes < 0.7 * exact.nbytes


def test_a_transposed_matrix_is_packed_as_it_reads():
    """MLX packs one that does not lie row by row wrongly on CUDA; here it is the same either way."""
    matrix = np.asfortranarray(np.random.default_rng(0).normal(size=(N, D)).astype(np.float32))
    packed, plain = (
        np.array(Factor.of(mx.array(m), 8).full(), np.float32) for m in (matrix, np.array(matrix, order="C"))
    )
    np.testing.assert_array_equal(packed, plain)
    assert np.abs(packed - matrix).max() < 0.03


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("bits", [None, 8])
def test_comes_back_as_it_was_saved(tmp_path, model, bits, low):
    maps = random_maps(bits=bits, low=low)
    maps.save(tmp_path / "maps")
    back, x = Maps.load(tmp_path / "maps", model, "this one"), normal(1, 3, D)
    assert back.nbytes == maps.nbytes
    for layer in range(3, LAYERS):
        for one, other in zip(maps.cuts[3].predict(layer, x), back.cuts[3].predict(layer, x), strict=True):
            assert mx.array_equal(one, other)


def test_maps_of_other_weights_are_refused(tmp_path, model):
    random_maps().save(tmp_path / "maps")
    with pytest.raises(MapsError, match="another model or other weights; fit them again"):
        Maps.load(tmp_path / "maps", model, "another")


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"num_hidden_layers": 5}, {"num_key_value_heads": 4}])
def test_maps_of_another_shape_are_refused(tmp_path, changes):
    random_maps().save(tmp_path / "maps")
    other = twin_of(stock_model(tiny_args(**{"hidden_size": D, **changes})))
    with pytest.raises(MapsError, match="of another shape"):
        Maps.load(tmp_path / "maps", other, "this one")


def test_a_file_that_is_not_whole_is_refused(tmp_path, model):
    path = tmp_path / "maps"
    random_maps().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(MapsError, match="^maps: .* was cut short"):
        Maps.load(path, model, "this one")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MapsError, match="was altered"):
        Maps.load(path, model, "this one")
    path.write_bytes(b"no maps")
    with pytest.raises(MapsError, match="is no saved maps"):
        Maps.load(path, model, "this one")
    with pytest.raises(MapsError, match="cannot be read"):
        Maps.load(tmp_path / "nowhere", model, "this one")
    with pytest.raises(MapsError, match="cannot be written"):
        random_maps().save(tmp_path / "nowhere" / "maps")


def test_another_version_is_refused(tmp_path, model):
    write_sealed(tmp_path / "maps", {"a": mx.zeros(3)}, {"format": "lazymlx maps", "version": "0"})
    with pytest.raises(MapsError, match="has version 0 .* reads 2; fit them again with lazymlx calibrate"):
        Maps.load(tmp_path / "maps", model, "this one")
