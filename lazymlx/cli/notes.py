"""What a user had better know before an answer."""

from collections.abc import Iterator

from ..config import LazyConfig

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


def notes(tokens: int, positions: int | None, uncalibrated: LazyConfig | None, used: LazyConfig) -> Iterator[str]:
    """What a user had better know before the answer.

    Args:
        tokens: of the prompt.
        positions: how many the model was trained on, if it says so.
        uncalibrated: the configuration asked for, if no schedule is stored for the model.
        used: the configuration that it became.
    """
    from ..machine import advice  # MLX comes with it

    if slow := advice():
        yield slow
    if beyond := beyond_positions(tokens, positions):
        yield beyond
    default = uncalibrated is not None and uncalibrated.schedule == "auto"
    if default and used.schedule and tokens >= used.min_tokens:
        yield (
            f"no schedule is stored for this model, so the default is used: {used.schedule}; "
            "set one with --schedule, or find the model's own with 'lazymlx calibrate'"
        )
