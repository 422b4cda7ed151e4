"""Maps: from a token's hidden state at a cut to the keys and values that it would have in the layers behind it.

A map is linear. It is given the state scaled to unit RMS, because what the layers make of a state depends on its
direction alone, and each of its values scaled by how much it varies, because a few vary a thousand times as much as
others, and would leave nothing of these in packed matrices. It gives keys as they are before they are rotated, so that
it knows nothing of positions.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import mlx.core as mx
from jaxtyping import Float

from ..config import LazyConfig
from ..errors import MapsError
from ..ranks.group import Ranks
from ..sealed import Wording, read_sealed, write_sealed
from .network import Network

FORMAT, VERSION = "lazymlx maps", "2"
WORDING = Wording("maps", "fit them again with lazymlx calibrate", "fit them again with lazymlx calibrate", MapsError)
EPS = 1e-6
VALUES_A_RANK = 8  # of a state, to one of the rank of low-rank maps
GROUP = 64  # values that share a scale where a map is packed


def unit(x: Float[mx.array, "*B D"], scale: Float[mx.array, " D"] | None = None) -> Float[mx.array, "*B D"]:
    """States scaled to unit RMS, and then each of their values by `scale`."""
    return mx.fast.rms_norm(x, scale, EPS)


@dataclass(frozen=True)
class Factor:
    """A matrix `(N, M)`, in 16 bits or packed."""

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    bits: int | None = None

    @classmethod
    def of(cls, matrix: Float[mx.array, "N M"], bits: int | None) -> "Factor":
        """A matrix whose rows do not fall into groups stays in 16 bits."""
        matrix = mx.contiguous(matrix.astype(mx.float16))  # on CUDA, MLX 0.32.4 packs any other as if it were
        if bits is None or matrix.shape[1] % GROUP:
            return cls(matrix)
        weight, *scaling = mx.quantize(matrix, group_size=GROUP, bits=bits)
        return cls(weight, scaling[0], scaling[1], bits)

    def __call__(self, x: Float[mx.array, "*B M"]) -> Float[mx.array, "*B N"]:
        return x @ self.full().T  # of all that waits: unpacking costs nothing beside so many rows

    def full(self) -> mx.array:
        if self.scales is None:
            return self.weight
        return mx.dequantize(self.weight, self.scales, self.biases, group_size=GROUP, bits=self.bits)

    def used_in(self, dtype: mx.Dtype) -> "Factor":
        """For products with states of this type. Unpacked once for float32, which models have on a CPU: there it
        takes time at every product."""
        if dtype == mx.float32:
            return Factor(self.full().astype(dtype))
        if self.scales is None or self.biases is None:
            return Factor(self.weight.astype(dtype))
        return Factor(self.weight, self.scales.astype(dtype), self.biases.astype(dtype), self.bits)

    def part(self, ranks: Ranks) -> "Factor":
        """The rows of a rank's keys, and those of its values."""
        scales, biases = (None if a is None else ranks.part(a, 0, 2) for a in (self.scales, self.biases))
        return Factor(ranks.part(self.weight, 0, 2), scales, biases, self.bits)

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1] * 32 // self.bits if self.bits else self.weight.shape[1]

    def named(self, name: str) -> dict[str, mx.array]:
        parts = {"weight": self.weight, "scales": self.scales, "biases": self.biases}
        return {f"{name}.{part}": array for part, array in parts.items() if array is not None}

    @classmethod
    def restored(cls, name: str, arrays: Mapping[str, mx.array], bits: int | None) -> "Factor":
        scales, biases = arrays.get(f"{name}.scales"), arrays.get(f"{name}.biases")
        return cls(arrays[f"{name}.weight"], scales, biases, None if scales is None else bits)


@dataclass(frozen=True)
class LayerMap:
    """To the keys and values of one layer, one behind the other: factors in the order of their use, and a bias."""

    factors: tuple[Factor, ...]
    bias: Float[mx.array, " N"]

    def __call__(self, x: Float[mx.array, "*B D"]) -> Float[mx.array, "*B N"]:
        *inner, last = self.factors
        for factor in inner:
            x = factor(x)
        return mx.addmm(self.bias.astype(x.dtype), x, last.full().T)

    def used_in(self, dtype: mx.Dtype) -> "LayerMap":
        return LayerMap(tuple(factor.used_in(dtype) for factor in self.factors), self.bias)

    def part(self, ranks: Ranks) -> "LayerMap":
        """To the keys and values of a rank's heads."""
        return LayerMap((*self.factors[:-1], self.factors[-1].part(ranks)), ranks.part(self.bias, 0, 2))

    def named(self, name: str) -> dict[str, mx.array]:
        factors = [factor.named(f"{name}.{n}") for n, factor in enumerate(self.factors)]
        return {f"{name}.bias": self.bias, **{key: array for part in factors for key, array in part.items()}}

    @classmethod
    def restored(cls, name: str, arrays: Mapping[str, mx.array], bits: int | None) -> "LayerMap":
        numbers = [n for n in range(2) if f"{name}.{n}.weight" in arrays]
        return cls(tuple(Factor.restored(f"{name}.{n}", arrays, bits) for n in numbers), arrays[f"{name}.bias"])


class R2(NamedTuple):
    """The share of the variance that a map explains, on text that it was not fitted to."""

    keys: float
    values: float


@dataclass(frozen=True)
class CutMap:
    """The maps of one cut, to every layer from there on.

    Attributes:
        cut: the first of these layers.
        kv_heads: of each of them.
        layers: their maps.
        scale: of each value of a state, beside unit RMS; powers of two, which are the same in every type.
        r2: how good each of them is, where that was measured.
    """

    cut: int
    kv_heads: tuple[int, ...]
    layers: tuple[LayerMap, ...]
    scale: Float[mx.array, " D"]
    r2: tuple[R2, ...] = ()

    def predict(
        self, layer: int, x: Float[mx.array, "1 L D"]
    ) -> tuple[Float[mx.array, "1 H_kv L D_h"], Float[mx.array, "1 H_kv L D_h"]]:
        """Keys, not rotated, and values of a layer, from the states at the cut."""
        return self.of_scaled(layer, self.scaled(x))

    def scaled(self, x: Float[mx.array, "1 L D"]) -> Float[mx.array, "1 L D"]:
        """States as the maps are given them."""
        return unit(x, self.scale)

    def of_scaled(self, layer: int, x: Float[mx.array, "1 L D"]) -> tuple[mx.array, mx.array]:
        """As `predict`, from states that are scaled already: once for all layers."""
        heads = self.kv_heads[layer - self.cut]
        both = self.layers[layer - self.cut](x).reshape(*x.shape[:2], 2 * heads, -1).transpose(0, 2, 1, 3)
        keys, values = mx.split(both, 2, axis=1)  # views, where an index would copy
        return keys, values

    def part(self, ranks: Ranks) -> "CutMap":
        """To the keys and values of a rank's heads."""
        heads = tuple(count // ranks.size for count in self.kv_heads)
        return replace(self, kv_heads=heads, layers=tuple(layer.part(ranks) for layer in self.layers))


@dataclass(frozen=True)
class Maps:
    """The maps of a model, by cut.

    Attributes:
        model: fingerprint of the model that they were fitted to.
        cuts: by the layer of the cut.
        bits: of packed matrices.
    """

    model: str
    cuts: Mapping[int, CutMap]
    bits: int | None = None

    def serve(self, config: LazyConfig) -> bool:
        """Whether a configuration looks ahead, and there is a map for each of its cuts."""
        wanted = config.lookahead > 0 and config.attend == "computed" and config.scorer is None
        return wanted and all(cut.layer in self.cuts for cut in config.cuts)

    def only(self, cuts: Iterable[int]) -> "Maps":
        """Those of some cuts."""
        return Maps(self.model, {cut: self.cuts[cut] for cut in cuts}, self.bits)

    def part(self, ranks: Ranks) -> "Maps":
        """To the keys and values of a rank's heads."""
        return Maps(self.model, {cut: maps.part(ranks) for cut, maps in self.cuts.items()}, self.bits)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays().values())

    def used_in(self, dtype: mx.Dtype) -> "Maps":
        """For states of this type, see `Factor.used_in`."""
        cuts = {
            cut: replace(
                maps, layers=tuple(layer.used_in(dtype) for layer in maps.layers), scale=maps.scale.astype(dtype)
            )
            for cut, maps in self.cuts.items()
        }
        return Maps(self.model, cuts, self.bits)

    def save(self, path: str | os.PathLike) -> None:
        """Write them to a file, in the form that they were fitted in.

        Raises:
            MapsError: it cannot be written.
        """
        heads = {cut: maps.kv_heads for cut, maps in self.cuts.items()}
        r2 = {cut: maps.r2 for cut, maps in self.cuts.items()}
        about = {"bits": json.dumps(self.bits), "heads": json.dumps(heads), "r2": json.dumps(r2)}
        header = {"format": FORMAT, "version": VERSION, "model": self.model, **about}
        write_sealed(path, self._arrays(), header, WORDING)

    @classmethod
    def load(cls, path: str | os.PathLike, network: Network, model: str) -> "Maps":
        """Read what `save` wrote.

        Args:
            network: that the maps must fit.
            model: its fingerprint.

        Raises:
            MapsError: the file cannot be read, is damaged, of another version, or belongs to another model.
        """
        arrays, header = read_sealed(path, FORMAT, VERSION, WORDING)
        if header["model"] != model:
            raise MapsError(f"maps: {path} was fitted to another model or other weights; {WORDING.again}")
        heads, bits, r2 = (json.loads(header[name]) for name in ("heads", "bits", "r2"))
        cuts: dict[int, CutMap] = {}
        for cut, by_layer in heads.items():
            restored = _restored(int(cut), tuple(by_layer), arrays, bits)
            _check_shapes(restored, network, path)
            cuts[int(cut)] = replace(restored, r2=tuple(R2(*each) for each in r2[cut]))
        return cls(model, cuts, bits)

    def _arrays(self) -> dict[str, mx.array]:
        arrays: dict[str, mx.array] = {}
        for cut, maps in self.cuts.items():
            arrays[f"{cut}.scale"] = maps.scale
            for layer, own in enumerate(maps.layers, cut):
                arrays |= own.named(f"{cut}.{layer}")
        return arrays


def kv_width(network: Network, layer: int) -> int:
    """Of a token's keys and values in a layer, together, on all ranks; nothing is computed."""
    _, keys, values = network.projected(layer)
    return (keys.size + values.size) * network.ranks.size


def rank_of(network: Network) -> int | None:
    """None for full maps, where key heads are shared; else a rank, or they would take a good part of a prefill."""
    width = max(kv_width(network, layer) for layer in range(len(network.layers)))
    return network.hidden_size // VALUES_A_RANK if width > network.hidden_size else None


def _restored(cut: int, heads: tuple[int, ...], arrays: Mapping[str, mx.array], bits: int | None) -> CutMap:
    layers = tuple(LayerMap.restored(f"{cut}.{cut + n}", arrays, bits) for n in range(len(heads)))
    return CutMap(cut, heads, layers, arrays[f"{cut}.scale"])


def _check_shapes(maps: CutMap, network: Network, path: str | os.PathLike) -> None:
    have = (len(maps.layers), maps.layers[0].factors[0].shape[1], *(len(layer.bias) for layer in maps.layers))
    deep = range(maps.cut, len(network.layers))
    want = (len(deep), network.hidden_size, *(kv_width(network, layer) for layer in deep))
    if have != want:
        raise MapsError(
            f"maps: {path} has maps for the cut at {maps.cut} of another shape: {have[0]} layers from states of "
            f"{have[1]}, expected {want[0]} from {want[1]}, keys and values as wide as the model's; {WORDING.again}"
        )
