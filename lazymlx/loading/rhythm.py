"""How many tokens come back how often, by what rows cost on the device."""

from collections.abc import Collection
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from ..config import LazyConfig
from ..costs.metal import chip_of, decode_cost

ONE_PASS = 3, 1  # tokens at every step: with the new one four rows, for which packed weights are read once


def on_metal() -> str | None:
    """The name of the chip, where arrays are computed by Metal."""
    if mx.default_device() != mx.Device(mx.gpu) or not mx.metal.is_available():
        return None
    return str(mx.device_info()["device_name"])


def in_rhythm(lazy: LazyConfig, model: nn.Module, chip_name: str | None, fixed: Collection[str] = ()) -> LazyConfig:
    """`lazy`, where neither it nor what is `fixed` says otherwise, with the cheaper rhythm on this chip.

    The default has seven come back at every second step. That many rows are nearly free in 16 bits, but packed weights
    are read twice for them, or tile by tile; three at every step bring nearly as many back.
    """
    default = LazyConfig()
    chip = None if chip_name is None else chip_of(chip_name)
    packed = any(isinstance(module, nn.QuantizedLinear) for module in model.modules())
    given = (lazy.revive, lazy.revive_every) != (default.revive, default.revive_every)
    if chip is None or not packed or not lazy.cuts or given or not {"revive", "revive_every"}.isdisjoint(fixed):
        return lazy
    assert lazy.revive is not None
    cheaper, usual = (decode_cost(chip, *each, 0.5) for each in (ONE_PASS, (lazy.revive, lazy.revive_every)))
    return replace(lazy, revive=ONE_PASS[0], revive_every=ONE_PASS[1]) if cheaper < usual else lazy
