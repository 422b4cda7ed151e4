"""Whether a checkpoint's tensors are those that its configuration asks for."""

from collections.abc import Mapping

import mlx.core as mx

from ..errors import ModelError

NAMED = 3  # tensors that an error names


def check_fit(expected: Mapping[str, mx.array], found: Mapping[str, mx.array]) -> None:
    """Compare names and shapes.

    Raises:
        ModelError: some tensors are missing, unknown or of another shape; the first ones are named.
    """
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    misfits = [
        f"{name} (expected {expected[name].shape}, got {found[name].shape})"
        for name in sorted(expected.keys() & found.keys())
        if expected[name].shape != found[name].shape
    ]
    complaints = [
        f"{len(names)} {what}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (misfits, "of another shape"))
        if names
    ]
    if complaints:
        raise ModelError(
            f"model: the checkpoint does not fit its configuration; tensors {'; '.join(complaints)}. "
            "Is the download complete, and config.json the checkpoint's own?"
        )
