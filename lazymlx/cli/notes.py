"""What a user had better know before an answer."""

from collections.abc import Iterator

from ..config import LazyConfig


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
    if positions is not None and tokens > positions:
        yield f"warning: the prompt has {tokens} tokens, more than the model's {positions} positions; expect nonsense"
    default = uncalibrated is not None and uncalibrated.schedule == "auto"
    if default and used.schedule and tokens >= used.min_tokens:
        yield (
            f"no schedule is stored for this model, so the default is used: {used.schedule}; "
            "set one with --schedule, or find the model's own with 'lazymlx calibrate'"
        )
