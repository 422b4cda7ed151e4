"""`LazyConfig`: what to compute: where tokens are left behind (its schedule), and how they are chosen.

Frozen, and validated when it is made; nothing here knows about arrays or models.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .errors import ConfigError
from .schedule import DEFAULT_PRESET, PRESETS, Cut, Schedule, ScheduleLike

if TYPE_CHECKING:
    from .engine.selection import Scorer

Reduce = Literal["mean", "max"]
Attend = Literal["computed", "selected"]
FilledUse = Literal["kept", "seen", "choosing"]

# what `mx.quantize` can do
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)

STORAGE = ("kv_bits", "kv_group_size", "quantized_kv_start", "aux_bits")  # fields that say how, not what

STEP_SIZE = 2048  # tokens of a prompt that are computed at a time, if nobody says otherwise
MOST = 2**30  # of anything that is counted: no conversation has more positions, and shapes have 32 bits
MOST_BESIDE = 2**16  # rows that a step has beside its token, and places that scores are padded by: memory is taken


@dataclass(frozen=True)
class LazyConfig:
    """How tokens are scored, kept, protected and revived. The defaults are lazymlx's, `paper()` is LazyLLM's.

    Attributes are documented once, as field metadata, which is also the command line's help.

    Raises:
        ConfigError: a value is outside of its range; the message names the field, what it takes and what came.
    """

    schedule: "ScheduleLike | Schedule" = field(
        default="auto",
        metadata={
            "help": "cuts as 'layer:keep,...' (from this layer on, keep x context tokens are processed), a preset "
            f"({', '.join(PRESETS)}), a file or folder of 'lazymlx calibrate --out', or auto: the schedule stored for "
            f"the model, else {DEFAULT_PRESET}"
        },
    )
    window: int = field(
        default=16, metadata={"help": "last prompt tokens whose attention scores the others; the paper: 1"}
    )
    pool: int = field(
        default=13,
        metadata={
            "help": "odd width over which scores are averaged with their neighbours, at least 63 where they come from "
            "looking ahead; 1: not"
        },
    )
    reduce: Reduce = field(
        default="mean",
        metadata={"help": "how the heads' scores become one; looking ahead: max", "choices": ("mean", "max")},
    )
    links: int = field(
        default=32,
        metadata={
            "help": "most important tokens of a prompt that are asked in turn, so that what they refer to is kept as "
            "well; the paper: 0"
        },
    )
    lookahead: int = field(
        default=64,
        metadata={
            "help": "last tokens of a prompt that look ahead before a cut leaves tokens behind, where maps were fitted "
            "for the model; 0 or off: never; on: 64, and an error where there are none"
        },
    )
    filled: FilledUse = field(
        default="kept",
        metadata={
            "help": "predicted keys and values of tokens left behind: seen by the tokens of a prompt that look ahead, "
            "when they go on; kept in few bits for those of the answer too, and what it attends to comes back; or used "
            "for choosing alone",
            "choices": ("kept", "seen", "choosing"),
        },
    )
    sink: int = field(default=4, metadata={"help": "first tokens of the prompt that are never left behind"})
    recent: int = field(default=32, metadata={"help": "last tokens of the prompt that are never left behind"})
    attend: Attend = field(
        default="computed",
        metadata={
            "help": "behind a cut, attend to every token computed there, or to the selected ones alone (the paper)",
            "choices": ("computed", "selected"),
        },
    )
    revive: int | None = field(
        default=7,
        metadata={
            "help": "left-behind tokens that may come back at a time, at each cut: a number, 'all' (at every token of "
            "an answer; the paper), or 0 (never)"
        },
    )
    revive_every: int = field(
        default=2,
        metadata={
            "help": "tokens of an answer from one such time to the next, for a number of them; what follows them in "
            "the text comes before its turn if the pool is some six times as wide"
        },
    )
    min_tokens: int = field(default=1024, metadata={"help": "shorter prompts are computed in full"})
    scorer: "Scorer | None" = field(
        default=None, metadata={"help": "importance of a token; None: attention, the paper's eq. 1"}
    )
    round_to: int = field(default=64, metadata={"help": "in prefill, kept tokens are rounded up to a multiple of this"})
    kv_bits: int | None = field(
        default=None, metadata={"help": "keep keys and values in so many bits", "choices": BITS}
    )
    kv_group_size: int = field(
        default=64, metadata={"help": "values that share a scale where bits are few", "choices": GROUP_SIZES}
    )
    quantized_kv_start: int = field(
        default=5000, metadata={"help": "with kv bits: the context from which on they are used"}
    )
    aux_bits: int | None = field(
        default=None, metadata={"help": "keep hidden states of tokens left behind in so many bits", "choices": BITS}
    )

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", self.schedule.strip())
            if self.schedule not in PRESETS and self.schedule != "auto":
                object.__setattr__(self, "schedule", Schedule.of(self.schedule))
        else:
            object.__setattr__(self, "schedule", Schedule.of(self.schedule))
        for name, least in (
            ("window", 1),
            ("links", 0),
            ("lookahead", 0),
            ("sink", 0),
            ("recent", 0),
            ("revive_every", 1),
            ("min_tokens", 0),
            ("round_to", 1),
            ("quantized_kv_start", 0),
        ):
            _check_int(name, getattr(self, name), least)
        _check_int("pool", self.pool, 1, MOST_BESIDE)
        if self.pool % 2 == 0:
            raise ConfigError(
                f"pool: must be odd, so that a token has as many neighbours on both sides, got {self.pool}"
            )
        if self.revive is not None:
            _check_int("revive", self.revive, 0, MOST_BESIDE, " or None (on the command line 'all')")
        if self.scorer is not None and not callable(self.scorer):
            raise ConfigError(f"scorer: must be a Scorer, got {self.scorer!r}")
        _check_choice("reduce", self.reduce, ("mean", "max"))
        _check_choice("filled", self.filled, ("kept", "seen", "choosing"))
        _check_choice("attend", self.attend, ("computed", "selected"))
        _check_choice("kv_bits", self.kv_bits, (None, *BITS))
        _check_choice("kv_group_size", self.kv_group_size, GROUP_SIZES)
        _check_choice("aux_bits", self.aux_bits, (None, *BITS))

    @classmethod
    def paper(cls, schedule: "ScheduleLike | Schedule" = "paper") -> "LazyConfig":
        """LazyLLM as published (arXiv 2407.14057, sec 3.2): last token's attention, no protection, all revived."""
        return cls(
            schedule,
            window=1,
            pool=1,
            links=0,
            lookahead=0,
            sink=0,
            recent=0,
            attend="selected",
            revive=None,
            revive_every=1,
            min_tokens=0,
            round_to=1,
        )

    @classmethod
    def dense(cls) -> "LazyConfig":
        """Nothing is left behind: the plain model."""
        return cls(())

    def resolve(self, layers: int) -> "LazyConfig":
        """This configuration with its preset turned into the cuts of a model of `layers` layers."""
        preset = DEFAULT_PRESET if self.schedule == "auto" else self.schedule
        return dataclasses.replace(self, schedule=Schedule.of(preset, layers))

    @property
    def packing(self) -> tuple[int, int]:
        """Bits of keys and values, and values that share a scale."""
        assert self.kv_bits is not None
        return self.kv_bits, self.kv_group_size

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts of a resolved configuration."""
        if not isinstance(self.schedule, Schedule):
            raise ConfigError(f"schedule: {self.schedule!r} must be resolved for a model first")
        return self.schedule.cuts

    def let_through(self, cut: Cut, context: int, protected: int | None = None, *, rounded: bool = True) -> int:
        """Tokens of a context that go on at a cut: its share and, on top, the protected ones; of a short context all.

        Args:
            protected: how many are; None: about as many as in a prompt.
            rounded: to a multiple of `round_to`, as a prompt's are.
        """
        if context < self.min_tokens:
            return context
        count = cut.count(context) + (self.sink + self.recent + self.window if protected is None else protected)
        return min(count + (-count % self.round_to if rounded else 0), context)


def _check_int(name: str, value: object, least: int, most: int = MOST, also: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}: must be a whole number of at least {least}{also}, got {value!r}")
    if value > most:
        raise ConfigError(f"{name}: must be at most {most}, got a larger number")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in [choice for choice in choices if type(choice) is type(value)]:
        raise ConfigError(f"{name}: must be one of {', '.join(map(str, choices))}, got {value!r}")
