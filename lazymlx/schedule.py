"""`Schedule`: where tokens are left behind; frozen, and validated when it is made.

A schedule is a tuple of cuts `(layer, keep)`: from this layer on, `keep` x context tokens are processed (LazyLLM,
section 3.2, "progressive pruning"). A preset gives its layers as fractions of the depth, and becomes a schedule
when the number of layers is known.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from .errors import ConfigError


class Cut(NamedTuple):
    """From `layer` on, `keep` x context tokens are processed."""

    layer: int
    keep: float

    def count(self, context: int) -> int:
        """Number of tokens kept out of `context`, rounded up; exact for decimal fractions (0.2 of 10 is 2)."""
        product = Fraction(str(self.keep)) * context
        return -(-product.numerator // product.denominator)


# Layers as a share of the depth. "paper": the three cuts of LazyLLM fig. 4 (30% dropped at 30, 60 and 90%
# of the depth). "early" and "steep": the two schedules of the speed tables, first cut at a quarter.
# "conservative" and "bold" were tried on a model that nobody trained to be cut: log of 2026-11-28, "looking ahead on a
# model that others trained", and of 2026-11-29, "the default cut once more".
PRESETS: dict[str, tuple[tuple[float, float], ...]] = {
    "dense": (),
    "conservative": ((0.75, 0.25),),
    "bold": ((0.5, 0.5), (0.75, 0.25)),
    "paper": ((0.3, 0.7), (0.6, 0.49), (0.9, 0.343)),
    "early": ((0.25, 0.6), (0.375, 0.4), (0.5, 0.3), (0.6875, 0.2)),
    "steep": ((0.25, 0.3), (0.375, 0.2), (0.5, 0.1), (0.6875, 0.05)),
}
DEFAULT_PRESET = "conservative"
BOLD = "bold"

ScheduleLike = str | Iterable[tuple[int, float]]


@dataclass(frozen=True)
class Schedule:
    """The cuts of one model, in order; empty means that nothing is ever left behind (the dense model)."""

    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        if self.cuts and self.cuts[0].layer < 1:
            raise ConfigError(f"schedule: a cut comes behind at least one layer, got layer {self.cuts[0].layer}")
        previous = Cut(0, 1.0)
        for cut in self.cuts:
            if cut.layer <= previous.layer:
                raise ConfigError(
                    f"schedule: layers must rise from cut to cut, got layer {cut.layer} after "
                    f"{previous.layer}; sort the cuts, e.g. '8:0.5,10:0.2'"
                )
            if not 0.0 < cut.keep <= 1.0:
                raise ConfigError(f"schedule: keep at layer {cut.layer} must be above 0 and at most 1, got {cut.keep}")
            if cut.keep > previous.keep:
                raise ConfigError(
                    f"schedule: keeps must not rise (a token left behind at layer {previous.layer} is no candidate "
                    f"at layer {cut.layer}), got {cut.keep} after {previous.keep}"
                )
            previous = cut

    @classmethod
    def of(cls, given: "ScheduleLike | Schedule", layers: int | None = None) -> "Schedule":
        """Read a schedule from cuts, from a string such as "8:0.5,10:0.2", or from a preset's name.

        A preset needs `layers`, the model's depth; with `layers`, cuts outside of the model are refused.
        """
        if isinstance(given, Schedule):
            schedule = given
        elif not isinstance(given, str):
            schedule = cls(_cuts(given))
        elif given.strip() in PRESETS:
            if layers is None:
                raise ConfigError(f"schedule: preset {given!r} needs a model to know its layers")
            schedule = cls(_preset_cuts(given.strip(), layers))
        else:
            schedule = cls(_parse(given))
        schedule._check_depth(layers)
        return schedule

    def _check_depth(self, layers: int | None) -> None:
        if layers is not None and self.cuts and self.cuts[-1].layer >= layers:
            raise ConfigError(
                f"schedule: layer {self.cuts[-1].layer} is outside of the model, which has layers 0 to {layers - 1}"
            )

    def __str__(self) -> str:
        return ",".join(f"{layer}:{keep:g}" for layer, keep in self.cuts) or "dense"

    def __bool__(self) -> bool:
        return bool(self.cuts)


def _cuts(given: object) -> tuple[Cut, ...]:
    if not isinstance(given, Iterable):
        raise ConfigError(f"schedule: expected cuts, text or a preset's name, got {given!r}")
    return tuple(_cut(pair) for pair in given)


def _cut(pair: object) -> Cut:
    try:
        layer, keep = pair  # type: ignore[misc]
        if isinstance(layer, bool) or int(layer) != layer:
            raise TypeError
        return Cut(int(layer), float(keep))
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"schedule: a cut is a pair (layer, keep) of a whole number and a share, got {pair!r}"
        ) from None


def _preset_cuts(name: str, layers: int) -> tuple[Cut, ...]:
    """A preset's cuts for this depth; in a very shallow model cuts that fall together become one."""
    cuts: dict[int, float] = {}
    for share, keep in PRESETS[name]:
        layer = round(share * layers)
        if 0 < layer < layers:
            cuts[layer] = keep
    return tuple(Cut(layer, keep) for layer, keep in cuts.items())


def _parse(text: str) -> tuple[Cut, ...]:
    if not text.strip():
        return ()
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple(Cut(int(layer), float(keep)) for layer, keep in pairs)
    except ValueError:
        raise ConfigError(
            f"schedule: expected 'layer:keep,...' such as '8:0.5,10:0.2' or one of {', '.join(PRESETS)}; got {text!r}"
        ) from None
