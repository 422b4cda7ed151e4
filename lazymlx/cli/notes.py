"""What a user had better know before an answer."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..config import LazyConfig
from ..schedule import BOLD, Cut, Schedule

if TYPE_CHECKING:
    from ..engine.model import Model

# what calibrating asks for: 8 kinds of prompts, 6 of each for some 30 schedules and 32 to check one, 64 tokens each
ANSWERS = 1800
# Qwen2.5-Coder-1.5B: log of 2026-11-29, "what counts in looking ahead"
BORNE = "one of 28 layers kept its answers about prose at 1.7x"
LENGTH = 4096  # tokens of a prompt that savings are told for: told once, they hold for what comes later

NAMING = (
    "name one with --model or LAZYMLX_MODEL, for example mlx-community/Llama-3.2-3B-Instruct-4bit with 8 GB of memory, "
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit with 16 GB, mlx-community/Qwen3-14B-4bit with 32 GB; "
    "'lazymlx models get smollm2' fetches a small one"
)
DEMO = f"this is a demonstration; for texts of your own it takes a model: {NAMING}"
EMBEDDED = f"the embedded model answers questions like the demonstration's, and no others; for a real model, {NAMING}"


def beyond_positions(tokens: int, positions: int | None) -> str | None:
    """A warning of a prompt that is longer than what the model was trained on."""
    if positions is None or tokens <= positions:
        return None
    return (
        f"warning: the prompt has {tokens} tokens, more than the model's {positions} positions, so expect nonsense; "
        "give it less, or take a model with more positions"
    )


def notes(
    tokens: int,
    model: "Model",
    uncalibrated: LazyConfig | None,
    used: LazyConfig,
    *,
    of_length: bool = True,
) -> Iterator[str]:
    """What a user had better know before the answer.

    Args:
        tokens: of the prompt.
        uncalibrated: the configuration asked for, if no schedule is stored for the model.
        used: the configuration that it became.
        of_length: warn of more tokens than the model has positions.
    """
    from ..machine import advice  # MLX comes with it

    if slow := advice():
        yield slow
    if of_length and (beyond := beyond_positions(tokens, model.max_positions)):
        yield beyond
    default = uncalibrated is not None and uncalibrated.schedule == "auto"
    if default and used.schedule and tokens >= used.min_tokens:
        yield _of_default(model, used)


def _of_default(model: "Model", used: LazyConfig) -> str:
    """What the default is, what there is to gain by calibrating and what that takes, and what goes without it."""
    bold = Schedule.of(BOLD, len(model.layers))
    return (
        f"no schedule is stored for this model, so a cautious one is used: {used.schedule}"
        f"{_fewer(model, used.cuts)}; 'lazymlx calibrate' finds what the model bears, in about the time of "
        f"{ANSWERS:,} short answers ({BORNE}); --fast is {bold}{_fewer(model, bold.cuts)}, unchecked"
    )


def _fewer(model: "Model", cuts: Sequence[Cut]) -> str:
    """What a schedule saves of a prompt; nothing where a model's operations are not counted."""
    from ..costs.flops import Sizes, ideal_speedup

    sizes = Sizes.of_model(model)
    return "" if sizes is None else f", {ideal_speedup(sizes, cuts, LENGTH):.1f}x fewer operations"
