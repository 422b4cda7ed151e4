"""`Family`: what the engine needs to know of an architecture, and how upstream's model becomes ours.

The weights, their names, the norms, the feed-forward and the way a layer adds them up are upstream's own module; a
family says where upstream keeps the parts, and how its attention, its embeddings and its logits differ from Llama's.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float, Integer

from ..attention import Attention, Variant, heads_normed, separate
from ..block import Block
from ..merged import SwiGLU

Adopt = Callable[[Any, int, Any], Attention]
Linear = Callable[[mx.array], mx.array]
Logits = Callable[[Any, mx.array, Linear], mx.array]


def plain(args: Any, index: int, theirs: Any) -> Attention:
    """Attention as in Llama, with everything before a token in sight."""
    return Attention(args, theirs)


def maybe_normed(args: Any, index: int, theirs: Any) -> Attention:
    """Whether queries and keys are normalised, head by head, is up to the configuration."""
    return Attention(args, theirs, Variant(project=heads_normed if args.use_qk_norm else separate))


def listed_window(args: Any, index: int) -> int | None:
    """The window of a layer where the configuration lists what each one sees."""
    return args.sliding_window if args.layer_types[index] == "sliding_attention" else None


@dataclass(frozen=True)
class Places:
    """Names under which upstream keeps the parts of a model."""

    trunk: str = "model"
    embedding: str = "embed_tokens"
    layers: str = "layers"
    attention: str = "self_attn"  # in a layer; a dot leads one module deeper
    norm: str = "norm"
    head: str = "lm_head"


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        title: the models that people know it by.
        upstream: its module in `mlx_lm.models`.
        attention: from the configuration, a layer's number and upstream's attention to ours.
        embed: from the configuration and a token's embedding to the first layer's input.
        logits: from the configuration, normalised rows and the head's projection to logits.
        places: where upstream keeps the parts.
        swiglu: the feed-forwards are Llama's.
        block: all that a layer does is, see `Block`; its feed-forward too.
        inside: where upstream keeps the language model, in one that sees as well (only text is served).
    """

    title: str
    upstream: str
    attention: Adopt = plain
    embed: Callable[[Any, mx.array], mx.array] = lambda args, x: x
    logits: Logits = lambda args, x, project: project(x)
    places: Places = Places()
    swiglu: bool = False
    block: bool = False
    inside: str | None = None

    def as_language_model(self, title: str, upstream: str, inside: str = "language_model") -> "Family":
        """This family as the language model of one that sees as well."""
        return replace(self, title=title, upstream=upstream, inside=inside)

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"mlx_lm.models.{self.upstream}")

    def build(self, args: Any) -> nn.Module:
        """Upstream's model, its attention (and Llama's feed-forward) replaced by ours."""
        model = self.module.Model(args)
        core = self.core(model)
        for index, layer in enumerate(self.layers(model)):
            *outer, name = self.places.attention.split(".")
            holder = layer
            for step in outer:
                holder = holder[step]
            holder[name] = self.attention(core.args, index, holder[name])
            if self.block:
                self.layers(model)[index] = Block(layer)
            elif self.swiglu:
                layer["mlp"] = SwiGLU(layer["mlp"])
        return model

    def sanitize(self, model: nn.Module, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Upstream's own preparation of a checkpoint; it may ask for a model's settings, and take out a head."""
        prepare = getattr(self.module.Model, "sanitize", None)
        return weights if prepare is None else prepare(model, weights)

    def core(self, model: nn.Module) -> nn.Module:
        """The language model."""
        return model if self.inside is None else model[self.inside]

    def layers(self, model: nn.Module) -> list[nn.Module]:
        return self.core(model)[self.places.trunk][self.places.layers]

    def embedding(self, model: nn.Module) -> nn.Embedding | nn.QuantizedEmbedding:
        """Of tokens."""
        return self.core(model)[self.places.trunk][self.places.embedding]

    def norm(self, model: nn.Module) -> nn.Module:
        """The norm before the head."""
        return self.core(model)[self.places.trunk][self.places.norm]

    def join(self, model: nn.Module) -> None:
        """Join what projects the same rows, see `joined`; once the weights are what they will be."""
        for layer in self.layers(model):
            self.attention_of(layer).join()
            if self.swiglu or self.block:
                layer["mlp"].join()

    def attention_of(self, layer: nn.Module) -> Attention:
        for step in self.places.attention.split("."):
            layer = layer[step]
        assert isinstance(layer, Attention)
        return layer

    def embedded(
        self, model: nn.Module, tokens: Integer[mx.array, "B L"], given: Float[mx.array, "B L D"] | None
    ) -> Float[mx.array, "B L D"]:
        """The first layer's input, for tokens or for embeddings of them."""
        x = self.embedding(model)(tokens) if given is None else given
        return self.embed(self.core(model).args, x)

    def answer(self, model: nn.Module, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L V"]:
        """Logits from the last layer's output."""
        core, head = self.core(model), self.places.head
        project = core[head] if head in core else self.embedding(model).as_linear
        return self.logits(core.args, self.norm(model)(x), project)
