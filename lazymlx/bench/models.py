"""The pair that is compared: our model and stock mlx-lm's, on the same arrays of weights.

Sharing them leaves room for large models, and no difference that is measured can come from the weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_reduce
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_model

from .. import demo
from ..engine.model import Model
from ..errors import UsageError
from ..loading.hub import find
from ..loading.load import load
from ..machine import on_cpu
from ..nn.maps import CutMap, Factor, LayerMap, Maps, kv_width, rank_of
from ..nn.sharding import shard
from ..ranks.group import ALONE, Ranks
from .shapes import shape_args

GROUP_SIZE = 64  # of quantised weights
SEED = 0
MAP_BITS = 8


@dataclass(frozen=True)
class Pair:
    """Two models that hold the same weights."""

    name: str
    ours: Model
    stock: nn.Module
    tokenizer: TokenizerWrapper | None  # None: random weights, for which any token is as good as another

    @property
    def args(self) -> Any:
        """The configuration of the language model."""
        return self.ours.family.core(self.ours).args

    @property
    def own_schedule(self) -> str:
        """The one that was stored for the model, else the default."""
        return str(self.ours.resolve(self.ours.lazy).schedule)

    @property
    def describe(self) -> dict[str, Any]:
        """What the pair is, ready for JSON."""
        args = self.args
        return {
            "name": self.name,
            "layers": len(self.ours.layers),
            "hidden_size": args.hidden_size,
            "heads": args.num_attention_heads,
            "kv_heads": getattr(args, "num_key_value_heads", None),
            "dtype": str(self.ours.dtype).removeprefix("mlx.core."),
            "bits": bits_of(self.ours),
            "weight_bytes": tree_reduce(lambda total, w: total + w.nbytes, self.ours.parameters(), 0),
            "random": self.tokenizer is None,
            "ranks": self.ours.ranks.size,  # each has so many bytes of weights
        }

    def prompt(self, length: int) -> mx.array:
        """Token ids: the embedded document over and over, or random ones if the weights are random."""
        if self.tokenizer is None:
            return mx.random.randint(1, self.args.vocab_size, (length,), key=mx.random.key(SEED))
        tokens = self.tokenizer.encode(demo.document())
        return mx.array((tokens * -(-length // len(tokens)))[:length])


def bits_of(model: nn.Module) -> int | None:
    """Bits of the quantised weights, or None."""
    found = [m.bits for m in model.modules() if isinstance(m, nn.QuantizedLinear)]
    return found[0] if found else None


def random_pair(shape: str, bits: int | None = None, ranks: Ranks = ALONE) -> Pair:
    """Random weights of a named shape: bf16, or float32 on a CPU (where 16-bit products are very slow)."""
    args = shape_args(shape)
    mx.random.seed(SEED)
    ours = Model(args)
    stock = ours.family.module.Model(args)
    ours.set_dtype(mx.float32 if on_cpu() else mx.bfloat16)
    for model in (ours, stock):
        if bits is not None:
            nn.quantize(model, group_size=GROUP_SIZE, bits=bits)
        model.eval()
    shard(ours, ranks)
    split(stock, ranks)
    for layer in ours.layers:  # one by one: what is made on the way needs little room then
        mx.eval(layer.parameters())
    mx.eval(ours.parameters())
    ours.join()  # as `load` does
    stock.update(ours.parameters())
    return Pair(titled(shape if bits is None else f"{shape}, {bits}-bit", ranks), ours, stock, None)


def split(stock: Any, ranks: Ranks) -> None:
    """Split mlx-lm's model over the ranks, as mlx-lm does."""
    if ranks.size > 1:
        stock.shard(ranks.group)


def titled(name: str, ranks: Ranks) -> str:
    """What a pair is called."""
    return name if ranks.size == 1 else f"{name}, {ranks.size} ranks"


def random_maps(model: Model, cuts: Iterable[int]) -> Maps:
    """Maps of random numbers, as large as fitted ones: what looking ahead takes does not depend on what they say."""
    mx.random.seed(SEED)

    def layer_map(number: int) -> LayerMap:
        N, D, rank = kv_width(model, number), model.hidden_size, rank_of(model)
        shapes = [(N, D)] if rank is None else [(rank, D), (N, rank)]
        factors = tuple(Factor.of(mx.random.normal(shape) / shape[1] ** 0.5, MAP_BITS) for shape in shapes)
        return LayerMap(factors, mx.zeros((N,)))

    scale = mx.ones((model.hidden_size,))
    heads = [model.family.attention_of(layer).kv_heads * model.ranks.size for layer in model.layers]
    deep = {cut: range(cut, len(heads)) for cut in cuts}
    maps = {cut: CutMap(cut, tuple(heads[cut:]), tuple(map(layer_map, own)), scale) for cut, own in deep.items()}
    return Maps("", maps, MAP_BITS)


def loaded_pair(path_or_hf_repo: str, name: str | None = None, ranks: Ranks = ALONE) -> Pair:
    """A model from a folder or the Hub."""
    ours, tokenizer = load(path_or_hf_repo, ranks=ranks)
    stock, _ = load_model(find(path_or_hf_repo), lazy=True)  # its weights are never read: ours take their place
    if bits_of(ours) is None:
        dequantize_model(stock)
    split(stock, ranks)
    stock.update(ours.parameters())
    stock.eval()
    return Pair(titled(name or path_or_hf_repo.rstrip("/").rsplit("/", 1)[-1], ranks), ours, stock, tokenizer)


def check_named(model: str | None, shape: str | None, bits: int | None) -> None:
    """Refuse names and bits that no pair can be made of.

    Raises:
        UsageError: both names were given, the shape is unknown, or the bits cannot be.
    """
    if model and shape:
        raise UsageError("give a model or a shape, not both")
    if bits is not None and not shape:
        raise UsageError("bits: only random weights are quantised here, name a shape with it")
    if bits not in (None, 2, 3, 4, 5, 6, 8):
        raise UsageError(f"bits: expected 2, 3, 4, 5, 6 or 8, got {bits}")
    if shape:
        shape_args(shape)


def make_pair(model: str | None, shape: str | None, bits: int | None, ranks: Ranks = ALONE) -> Pair:
    """What the caller named: a shape, a model, or with neither the embedded model; split over the ranks.

    Raises:
        UsageError: see `check_named`.
        ModelError: see `load`.
    """
    check_named(model, shape, bits)
    if shape:
        return random_pair(shape, bits, ranks)
    return loaded_pair(model, ranks=ranks) if model else loaded_pair(str(demo.MODEL), "embedded", ranks)
