"""What goes with a saved document: the model that read it, and what was read."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from .party import decided

THE_EMBEDDED = "the embedded model"


class ReadDocument(NamedTuple):
    """Something that was read."""

    name: str
    tokens: int


def called(model: str | None) -> str:
    """What to call a model that the flags name."""
    return THE_EMBEDDED if model is None else model


def origin(args: argparse.Namespace, documents: Sequence[ReadDocument]) -> dict[str, Any]:
    """What to save with a document; a model's folder is to be found from everywhere."""
    name = called(args.model)
    there = Path(name).expanduser()
    model = str(there.resolve()) if args.model and there.exists() else name
    return {"model": model, "adapter": args.adapter_path, "documents": [list(document) for document in documents]}


def documents_of(about: dict[str, Any]) -> list[ReadDocument]:
    """What was read, by what was saved with it; other programs save other things."""
    listed = about.get("documents")
    entries = listed if isinstance(listed, list) else []
    return [ReadDocument(*entry) for entry in entries if isinstance(entry, list) and [*map(type, entry)] == [str, int]]


@contextmanager
def own_model(args: argparse.Namespace) -> Iterator[None]:
    """Have the model that the flags' document was saved with, unless the user names one.

    Raises:
        ModelError: inside, and it is that model's.
    """
    said = {} if args.document is None else decided(args, "about", lambda: _about(args.document))
    model, adapter = (said[name] if isinstance(said.get(name), str) else None for name in ("model", "adapter"))
    own = model is not None and "model" not in args.given
    if own:
        args.model = None if model == THE_EMBEDDED else model
        args.adapter_path = args.adapter_path or adapter
        args.trust_remote_code = "trust_remote_code" in args.given  # not for whatever a file names
    try:
        yield
    except ModelError as error:
        if not own:
            raise
        reason = f"document: {args.document} was saved with {args.model}, which cannot be had"
        raise ModelError(f"{reason}; name it with --model ({error})") from None


def _about(path: Path) -> dict[str, Any]:
    from ..session.saved import about  # MLX comes with it

    return about(path)
