"""Attention over tokens at arbitrary positions, in the place of upstream's.

A layer is upstream's own: its norms, its feed-forward and the order in which it uses them. Only its attention is ours.
It takes over upstream's projections under their names, so that checkpoints and adapters fit, and knows nothing of
stages or selection: it is given rows, their positions, a mask, and the keys and values of its earlier rows. What
differs from family to family is passed to it as a few functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from jaxtyping import Float, Integer
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE

from ..cache.masks import Mask
from ..cache.rows import Quantized, unpacked
from ..cache.stage import KeysAndValues, KeysValues, Span
from .attend import FEW_ROWS, Parts, Shown, attend, attend_few, attend_in_parts
from .backend import serves_few, ways
from .merged import Joined, alike, projected
from .rope import Positions, rotate, shifted

ByHead = tuple[Float[mx.array, "B L H D_h"], Float[mx.array, "B L H_kv D_h"], Float[mx.array, "B L H_kv D_h"]]
Project = Callable[["Attention", mx.array], ByHead]
Turned = Callable[["Attention", mx.array, mx.array, "Rows"], tuple[mx.array, mx.array]]
Gate = Callable[["Attention", mx.array, mx.array], mx.array]


@dataclass(frozen=True)
class Beside:
    """Keys and values beside those of a stage, which the last rows of a call see as well.

    Attributes:
        parts: the keys, rotated, and the values.
        shown: what each of these rows sees: first of the parts, then of the stage.
    """

    parts: Parts
    shown: Shown


class Rows:
    """The rows of one call on their way through one layer: what upstream's layers hand on as their `cache`."""

    def __init__(
        self,
        positions: Positions,
        earlier: KeysValues | None,
        span: Span,
        first: int = 0,
        beside: Beside | None = None,
    ):
        self.positions = positions
        self.earlier = earlier
        self.span = span
        self.first = first  # slot from which on to look; what is before lies outside of the layer's window
        self.beside = beside
        self.given: mx.array  # set by the attention: its input, (B, L, D)
        self.queries: mx.array  # set by the attention: rotated, (B, H, L, D_h)
        self.logits: mx.array | None = None  # and these, if it has them at hand: (B, H, L, S)
        self.probabilities: mx.array  # set by the attention, of the rows that see keys beside the stage: (B, H, R, S)

    def at(self, L: int) -> Integer[mx.array, " L"]:
        """The position of each of `L` rows."""
        return mx.arange(L) + self.positions if isinstance(self.positions, int) else self.positions

    def store(self, keys: Float[mx.array, "B H_kv L D_h"], values: Float[mx.array, "B H_kv L D_h"]) -> KeysAndValues:
        """Put the rows' keys and values beside those of earlier ones, and return all of these."""
        if self.earlier is None:
            return keys, values
        self.earlier.append(keys, values, self.span)
        return self.earlier.read(self.first, self.span.stop)

    def stored_before(self, last: int) -> KeysAndValues:
        """The same once they are there, without those of the `last` rows."""
        assert self.earlier is not None
        return self.earlier.read(self.first, self.span.stop - last)


def separate(attention: "Attention", x: Float[mx.array, "B L D"]) -> ByHead:
    """Queries, keys and values by three projections."""
    return attention.by_head(*attention.projections(x))


def heads_normed(attention: "Attention", x: Float[mx.array, "B L D"]) -> ByHead:
    """The same, queries and keys normalised head by head."""
    queries, keys, values = separate(attention, x)
    return attention["q_norm"](queries), attention["k_norm"](keys), values


def all_normed(attention: "Attention", x: Float[mx.array, "B L D"]) -> ByHead:
    """The same, queries and keys normalised over all heads together."""
    queries, keys, values = attention.projections(x)
    return attention.by_head(attention["q_norm"](queries), attention["k_norm"](keys), values)


def fused(name: str) -> Project:
    """Queries, keys and values by one projection, one behind the other."""

    def project(attention: "Attention", x: Float[mx.array, "B L D"]) -> ByHead:
        rows = attention[name](x)
        D_h = rows.shape[-1] // (attention.heads + 2 * attention.kv_heads)
        ends = [attention.heads * D_h, (attention.heads + attention.kv_heads) * D_h]
        queries, keys, values = mx.split(rows, ends, axis=-1)
        if rows.shape[1] > FEW_ROWS:
            values = mx.contiguous(values)  # kept as a view, they would keep the others with them
        return attention.by_head(queries, keys, values)

    return project


@dataclass(frozen=True)
class Variant:
    """How an architecture's attention differs from Llama's.

    Attributes:
        kv_heads: if the configuration does not name them.
        scale: of the logits, if upstream's attention does not name it.
        project: from a layer's input to queries, keys and values by head.
        rope: name of the part that rotates queries and keys; None leaves them without positions.
        turned: a change to rotated queries and keys.
        window: tokens that a token sees, itself included; None for all before it.
        softcap: see `attend`.
        gate: a change to the heads' outputs, of which the layer's input decides.
        output: name of the part that projects these.
        precise: dtypes in which logits need float32.
    """

    kv_heads: int | None = None
    scale: float | None = None
    project: Project = separate
    rope: str | None = "rope"
    turned: Turned | None = None
    window: int | None = None
    softcap: float | None = None
    gate: Gate | None = None
    output: str = "o_proj"
    precise: tuple[mx.Dtype, ...] = ()


LLAMA = Variant()


class Attention(nn.Module):
    """Multi-head or grouped-query attention.

    Args:
        args: upstream's configuration.
        theirs: upstream's attention; its parts, and sinks, become this one's.
    """

    def __init__(self, args: Any, theirs: Any, variant: Variant = LLAMA):
        super().__init__()
        for name, part in theirs.items():
            self[name] = part
        self.sinks = theirs.get("sinks")
        self.heads = args.num_attention_heads
        self.kv_heads = variant.kv_heads or args.num_key_value_heads
        self.scale: float = variant.scale or theirs.scale
        self.project, self.rotated_by, self.turned = variant.project, variant.rope, variant.turned
        self.gate, self.projected_by = variant.gate, variant.output
        self.window, self.softcap, self.precise = variant.window, variant.softcap, variant.precise
        self.joined: Joined | None = None

    def __call__(
        self,
        x: Float[mx.array, "B L D"],
        mask: Mask = None,
        cache: Rows | None = None,
        onto: Float[mx.array, "B L D"] | None = None,
    ) -> Float[mx.array, "B L D"]:
        """Attention's output, on top of what it is to be added to; the rows that come as `cache` get to know their
        queries."""
        rows = cache or Rows(0, None, Span(context=x.shape[1]))
        rows.given = x
        queries, keys, values = self._rotated(x, rows)
        if self.turned is not None:
            queries, keys = self.turned(self, queries, keys, rows)
        rows.queries = queries
        out = self._attended(queries, rows.store(keys, values), mask, rows)
        out = out.astype(queries.dtype).transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        return projected(self[self.projected_by], out if self.gate is None else self.gate(self, out, x), onto)

    def _attended(self, queries: mx.array, own: KeysAndValues, mask: Mask, rows: Rows) -> Float[mx.array, "B H L D_h"]:
        """Attention to what the stage holds, and of the last rows to what is beside it."""
        queries = queries.astype(mx.float32) if queries.dtype in self.precise else queries
        if rows.beside is None:
            return self._attended_alone(queries, own, mask, rows)
        parts, shown = [*rows.beside.parts, own], rows.beside.shown
        last = shown.mask.shape[0]
        first = queries.shape[2] - last
        out, rows.probabilities = attend_in_parts(queries[:, :, first:], parts, self.scale, shown, **self._beyond)
        if first == 0:
            return out
        seen = mask[:-last, :-last] if isinstance(mask, mx.array) else mask  # the last rows hold the last slots
        alone = self._attended_alone(queries[:, :, :first], rows.stored_before(last), seen, rows)
        return mx.concatenate([alone, out], axis=2)

    def _attended_alone(
        self, queries: mx.array, own: KeysAndValues, mask: Mask, rows: Rows
    ) -> Float[mx.array, "B H L D_h"]:
        """Attention to what the stage holds."""
        keys, values = own
        if isinstance(mask, mx.array) and not isinstance(keys, Quantized) and self._splits(queries):
            out, rows.logits = attend_few(queries, keys, unpacked(values), self.scale, mask)
            return out
        return attend(queries, keys, values, scale=self.scale, mask=mask, **self._beyond)

    @property
    def _beyond(self) -> dict[str, Any]:
        """What the logits are, beside products."""
        return {"softcap": self.softcap, "sinks": self.sinks}

    def _splits(self, queries: Float[mx.array, "B H L D_h"]) -> bool:
        """Whether rows with a mask go in split products: few of them, where fused attention is no better."""
        _, heads, rows, size = queries.shape
        if self.softcap is not None or self.sinks is not None:
            return False
        return rows <= FEW_ROWS and not (ways().fused and serves_few(rows, heads, self.kv_heads, size))

    def _rotated(self, x: mx.array, rows: Rows) -> tuple[mx.array, mx.array, mx.array]:
        """Queries and keys, rotated, and values: `(B, heads, L, D_h)`."""
        if self.project is separate and self.joined is not None and self.joined.serves(x, self._projecting()):
            every = split(self.joined(x), self.heads + 2 * self.kv_heads).transpose(0, 2, 1, 3)
            # values too, to no use: what lies in one piece is rotated as it lies, a part of it would be copied first
            turned, keys_end = self._turned_to(every, rows), self.heads + self.kv_heads
            return turned[:, : self.heads], turned[:, self.heads : keys_end], every[:, keys_end:]
        queries, keys, values = (part.transpose(0, 2, 1, 3) for part in self.project(self, x))
        return self._turned_to(queries, rows), self._turned_to(keys, rows), values

    def _turned_to(self, x: mx.array, rows: Rows) -> mx.array:
        if self.rotated_by is None:
            return x
        return rotate(self[self.rotated_by], x, rows.positions, rows.span.context)

    def placed(
        self, keys: Float[mx.array, "1 H_kv L D_h"], positions: Integer[mx.array, " L"], context: int
    ) -> Float[mx.array, "1 H_kv L D_h"]:
        """Keys as projected, rotated by their positions: what queries are compared with."""
        rows = Rows(positions, None, Span(context=context))
        keys = self._turned_to(keys, rows)
        return keys if self.turned is None else self.turned(self, keys, keys, rows)[1]

    def keys_of(self, rows: Rows) -> Float[mx.array, "1 H_kv L D_h"]:
        """The keys of rows that went through this layer."""
        _, keys, _ = self.project(self, rows.given)
        return self.placed(keys.transpose(0, 2, 1, 3), rows.at(keys.shape[1]), rows.span.context)

    def shifted(self, x: Float[mx.array, "1 F L D_h"], by: int) -> Float[mx.array, "1 F L D_h"]:
        """Queries or keys as of tokens that stand `by` positions further, where that can be had of them."""
        return x if self.rotated_by is None else shifted(self[self.rotated_by], x, by)

    @property
    def shiftable(self) -> bool:
        """Whether rotated keys of one place can become those of another: nothing but their position is in them."""
        return self.turned is None and not self.stretched

    @property
    def stretched(self) -> bool:
        """Whether the rotation depends on the length of the context."""
        return self.rotated_by is not None and isinstance(self[self.rotated_by], DynamicNTKScalingRoPE)

    def join(self) -> None:
        """Let few rows go through the three projections together, where there are three."""
        if "q_proj" in self:
            parts = self._projecting()
            self.joined = Joined(parts) if alike(parts) else None

    def projections(self, x: Float[mx.array, "B L D"]) -> Sequence[Float[mx.array, "B L _"]]:
        """Queries, keys and values, all heads of each together."""
        parts = self._projecting()
        if self.joined is not None and self.joined.serves(x, parts):
            return self.joined.apart(x)
        return [part(x) for part in parts]

    def _projecting(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self["q_proj"], self["k_proj"], self["v_proj"]

    def by_head(self, queries: mx.array, keys: mx.array, values: mx.array) -> ByHead:
        """Split projected rows into heads."""
        return split(queries, self.heads), split(keys, self.kv_heads), split(values, self.kv_heads)


def split(x: Float[mx.array, "B L N"], heads: int) -> Float[mx.array, "B L T D_h"]:
    """Projected rows, head by head."""
    return x.reshape(*x.shape[:2], heads, -1)


def last_output(layer: nn.Module, x: Float[mx.array, "1 L D"], mask: Mask, rows: Rows) -> tuple[mx.array, Rows]:
    """The output of a layer for the last of several rows alone, and that row.

    Of the others only the keys and values are wanted: since arrays are lazy, nothing else of them is ever computed.
    """
    others, at, span = x.shape[1] - 1, rows.at(x.shape[1]), rows.span
    layer(x[:, :-1], mask=None, cache=Rows(at[:-1], rows.earlier, span, rows.first))
    last = mask[-1:] if isinstance(mask, mx.array) else None
    beside = rows.beside and Beside(rows.beside.parts, rows.beside.shown.last())
    row = Rows(at[-1:], rows.earlier, replace(span, start=span.start + others), rows.first, beside)
    return layer(x[:, -1:], mask=last, cache=row), row
