"""Prompts against the positions of a model: what cannot be asked is said before anything is."""

from collections.abc import Sequence

from ..errors import UsageError
from .encoding import Encoder
from .samples import Sample

MOST_BYTES = 64  # of a token, a mean that no text comes to: more need not be encoded to be too long


def check_lengths_fit(lengths: Sequence[int], positions: int | None) -> None:
    """Refuse lengths of generated prompts that the model has no positions for.

    Raises:
        UsageError: there are some.
    """
    if positions is not None and (beyond := [length for length in lengths if length > positions]):
        raise UsageError(
            f"--lengths: the model has {positions} positions, got {', '.join(map(str, beyond))}; leave out what is "
            "longer, or take a model with more positions"
        )


def check_samples_fit(samples: Sequence[Sample], encoder: Encoder, positions: int | None) -> None:
    """Refuse prompts from files that the model has no positions for.

    Raises:
        UsageError: there are some that may not be shortened; the first one is named.
    """
    if positions is None:
        return
    beyond = [s for s in samples if not s.middle_out and _is_beyond(s, encoder, positions - s.max_tokens)]
    if beyond:
        first = beyond[0]
        raise UsageError(
            f"--data: {len(beyond)} of {len(samples)} prompts are longer than the model's {positions} positions, with "
            f"up to {first.max_tokens} tokens of an answer; the first is line {first.index} of {first.task}; leave "
            "such lines out, or take a model with more positions"
        )


def shortened(samples: Sequence[Sample], encoder: Encoder, positions: int | None) -> int:
    """How many prompts will lose their middle, as is customary for their set."""
    if positions is None:
        return 0
    return sum(s.middle_out and _is_beyond(s, encoder, positions - s.max_tokens) for s in samples)


def _is_beyond(sample: Sample, encoder: Encoder, most: int) -> bool:
    """Whether a prompt has more tokens than that. A token has one byte at least, so short texts need no encoding."""
    size = len(sample.message.encode()) + encoder.overhead
    if size <= most or size > MOST_BYTES * most:
        return size > most
    return len(encoder.prompt(sample.message, chat=sample.chat).tokens) > most
