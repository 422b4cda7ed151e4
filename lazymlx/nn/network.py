"""`Network`: a model's parts, and the plain dense model that they are.

The parts are upstream's, under upstream's names, so that checkpoints and adapters fit; what is particular to an
architecture is its family's affair, and how to leave tokens behind is `Model`'s.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float, Integer
from mlx.utils import tree_flatten

from ..cache.stage import Span
from ..ranks.group import ALONE, Ranks
from .checkpoint import check_fit
from .families import Family, family_of
from .identity import Known
from .loop import View, run_layers
from .windows import sight


class Network(nn.Module):
    """A causal language model.

    Args:
        args: upstream's configuration.
        family: of an architecture that is not in the table.
    """

    def __init__(self, args: Any, family: Family | None = None):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.family = family or family_of(args.model_type, getattr(args, "text_config", None))
        built = self.family.build(args)
        for name, part in built.children().items():
            self[name] = part
        # upstream's settings beside the parts, of which its preparation of a checkpoint may ask
        vars(self).update({name: value for name, value in vars(built).items() if not name.startswith("_")})
        # how many tokens each layer sees; None for all
        self.windows: tuple[int | None, ...] = tuple(self.family.attention_of(layer).window for layer in self.layers)
        self.sight = sight(self.windows)
        self.ranks: Ranks = ALONE  # that hold it together
        self.identity: tuple[Known, ...] = ()  # of all of its weights, where this rank has a part of them
        # that it was made for, where upstream's configuration says it; not every one does, `load` looks itself
        self.max_positions: int | None = getattr(self.family.core(self).args, "max_position_embeddings", None)

    @property
    def layers(self) -> list[nn.Module]:
        return self.family.layers(self)

    @property
    def dtype(self) -> mx.Dtype:
        """What hidden states are computed in."""
        return self.family.norm(self)["weight"].dtype

    @property
    def hidden_size(self) -> int:
        return self.family.norm(self)["weight"].shape[-1]

    @property
    def vocab_size(self) -> int:
        return self.family.embedding(self)["weight"].shape[0]

    @property
    def head_size(self) -> int:
        """Of a key."""
        return self.projected()[1].shape[-1]

    @property
    def query_size(self) -> int:
        """Of a token's queries in all heads."""
        return self.projected()[0].size

    @property
    def shiftable(self) -> bool:
        """Whether what was computed of tokens in one place can be had for another, see `Attention.shiftable`."""
        return all(self.family.attention_of(layer).shiftable for layer in self.layers)

    def projected(self, layer: int = 0) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values of a row in a layer, for their shapes: nothing is computed."""
        attention = self.family.attention_of(self.layers[layer])
        return attention.project(attention, mx.zeros((1, 1, self.hidden_size), self.dtype))

    def load_weights(self, file_or_weights: str | list[tuple[str, mx.array]], strict: bool = True) -> nn.Module:
        """As every module's; strictly, tensors that do not fit are named.

        Raises:
            ModelError: a tensor is missing, unknown or of another shape.
        """
        if strict and not isinstance(file_or_weights, str):
            check_fit(dict(tree_flatten(self.parameters())), dict(file_or_weights))
        return super().load_weights(file_or_weights, strict)

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Bring a checkpoint's tensors into the form of the parameters."""
        return self.family.sanitize(self, weights)

    def join(self) -> None:
        """Let decode steps take projections of the same rows as one, see `joined`; their weights become views."""
        self.family.join(self)

    def embedded(
        self, tokens: Integer[mx.array, "B L"], given: Float[mx.array, "B L D"] | None = None
    ) -> Float[mx.array, "B L D"]:
        """The first layer's input, for tokens or for embeddings of them."""
        return self.family.embedded(self, tokens, given)

    def answer(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L V"]:
        """Logits from the last layer's output."""
        return self.family.answer(self, x)

    def dense(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L D"]:
        """Run everything through every layer."""
        L = x.shape[1]
        return run_layers(self.layers, self.windows, x, View(0, "causal" if L > 1 else None, Span(context=L)))[0]
