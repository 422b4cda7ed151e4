"""Projections of the same rows, joined: where few rows come, one product costs less than several.

A decode step is bound by reading weights and by starting kernels, one a product. The weights of projections that read
the same rows are laid one behind the other in one buffer, of which each projection keeps its own part under its own
name. Few rows are multiplied with all of the buffer at once; many with the parts, as ever.
"""

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float
from mlx_lm.models.activations import swiglu

from .attend import FEW_ROWS

ARRAYS = ("weight", "scales", "biases", "bias")  # of a projection, by its outputs along the first axis


class Joined:
    """One product in the place of several projections' of the same rows.

    Args:
        parts: linear layers alike in all but the number of outputs, see `alike`; their weights become views.
    """

    def __init__(self, parts: Sequence[nn.Module]):
        self.parts = list(parts)
        self.linear = copy.copy(parts[0])
        self.ends = [sum(part["weight"].shape[0] for part in parts[: i + 1]) for i in range(len(parts) - 1)]
        for name in (name for name in ARRAYS if name in parts[0]):
            self.linear[name] = mx.concatenate([part[name] for part in parts])
            for part, view in zip(parts, mx.split(self.linear[name], self.ends), strict=True):
                part[name] = view
        mx.eval(self.linear.parameters(), [part.parameters() for part in parts])
        self.views = [part["weight"] for part in parts]

    def serves(self, x: Float[mx.array, "B L D"], parts: Sequence[nn.Module]) -> bool:
        """Whether the rows are few, and the parts still what was joined: no adapter, no new weights in their place."""
        if x.shape[1] > FEW_ROWS:
            return False
        for part, own, view in zip(parts, self.parts, self.views, strict=True):
            if part is not own or own["weight"] is not view:
                return False
        return True

    def __call__(self, x: Float[mx.array, "B L D"]) -> Float[mx.array, "B L N"]:
        """The outputs of all parts, one behind the other."""
        return self.linear(x)

    def apart(self, x: Float[mx.array, "B L D"]) -> list[Float[mx.array, "B L _"]]:
        """The output of each part."""
        return list(mx.split(self(x), self.ends, axis=-1))


def alike(parts: Sequence[nn.Module]) -> bool:
    """Whether projections can be joined: plain or quantised linear layers of one kind, nothing attached to them."""
    first = parts[0]
    return type(first) in (nn.Linear, nn.QuantizedLinear) and all(
        type(part) is type(first)
        and part.keys() == first.keys()
        and _settings(part) == _settings(first)
        and all(part[name].dtype == first[name].dtype for name in first)
        for part in parts
    )


def _settings(part: nn.Module) -> dict[str, Any]:
    """What a linear layer knows beside its arrays: bits, group size, mode."""
    return {name: value for name, value in vars(part).items() if not name.startswith("_")}


def projected(
    part: nn.Module, x: Float[mx.array, "B L N"], onto: Float[mx.array, "B L D"] | None = None
) -> Float[mx.array, "B L D"]:
    """A projection of rows, on top of what it is to be added to: within the product, where that costs nothing."""
    if onto is None:
        return part(x)
    if x.shape[1] == 1 or type(part) is not nn.Linear or "bias" in part:
        return onto + part(x)  # MLX's CUDA backend has a product of one row that is cheap, but does not add
    return mx.addmm(onto, x, part["weight"].T)


class SwiGLU(nn.Module):
    """Llama's feed-forward, of upstream's parts.

    Args:
        theirs: upstream's, with a `gate_proj`, an `up_proj` and a `down_proj`.
    """

    def __init__(self, theirs: nn.Module):
        super().__init__()
        for name, part in theirs.items():
            self[name] = part
        self.joined: Joined | None = None

    def __call__(
        self, x: Float[mx.array, "B L D"], onto: Float[mx.array, "B L D"] | None = None
    ) -> Float[mx.array, "B L D"]:
        """Its output, on top of what it is to be added to."""
        parts = self["gate_proj"], self["up_proj"]
        if self.joined is not None and self.joined.serves(x, parts):
            gate, up = self.joined.apart(x)
        else:
            gate, up = parts[0](x), parts[1](x)
        return projected(self["down_proj"], swiglu(gate, up), onto)

    def join(self) -> None:
        """Join what can be joined."""
        parts = self["gate_proj"], self["up_proj"]
        self.joined = Joined(parts) if alike(parts) else None
