"""A device that is full although the estimate said that there is room: others have taken it since.

Metal and CUDA say so in their own words, whenever the failed piece of work is waited for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from ..config import LazyConfig
from ..engine.model import Model
from ..errors import RunError, TooLargeError
from ..units import size
from .memory import estimate_memory

WORDS = ("insufficient memory", "unable to allocate", "maximum allowed buffer", "out of memory")


def is_full(error: BaseException) -> bool:
    """Whether an error of MLX says that there is no memory left."""
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


@contextmanager
def refused_if_full(model: Model, config: LazyConfig, tokens: int, context: int, step_size: int) -> Iterator[None]:
    """Say of a full device what was needed.

    Args:
        tokens: to be computed.
        context: tokens that the conversation held before.

    Raises:
        TooLargeError: the device had no room left; one of several, then it is a RunError.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        need = estimate_memory(model, tokens, config, step_size=step_size, context=context)
        # what one of several ranks alone has met ends them all: the others are waiting for it
        refusal = TooLargeError if model.ranks.size == 1 else RunError
        raise refusal(
            f"memory: the device is full: {context + tokens} tokens need about {size(need.total)}, "
            f"{size(need.weights)} of it for the weights, and {size(mx.get_active_memory())} are in use by this "
            "process; close other programs, or give a smaller prefill step size or a shorter prompt"
        ) from error
