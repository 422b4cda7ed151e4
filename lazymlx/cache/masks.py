"""Which keys a row may see. Masks compare positions, so the order of the slots does not matter."""

import mlx.core as mx
from jaxtyping import Bool, Integer

Mask = Bool[mx.array, "L S"] | str | None


def causal(
    at: Integer[mx.array, " L"], keys_at: Integer[mx.array, " S"], window: int | None = None
) -> Bool[mx.array, "L S"]:
    """Which keys, by their positions, tokens see: none later than themselves, and none outside of their window."""
    mask = keys_at[None] <= at[:, None]
    return mask if window is None else mask & (keys_at[None] > at[:, None] - window)
