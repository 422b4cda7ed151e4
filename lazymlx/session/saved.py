"""Saved documents: what a session has read and said, in one file that is the same when it comes back.

The file belongs to one model and one configuration. Everything that a later step may depend on is in it, down to the
size of the buffers, so that the same question gives bit-equal logits before and after.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from ..cache.conversation import LazyCache
from ..cache.stage import StageCache
from ..cache.undo import Slots
from ..config import LazyConfig
from ..engine.links import query_buffer
from ..engine.model import Model
from ..errors import DocumentError, StateError
from ..nn.identity import known, weights_of
from ..sealed import is_sealed, read_header, read_sealed, write_sealed
from .claims import Claims, Unbelievable, one_token
from .heads import ArrayForm, form_of, of_all_ranks, of_this_rank
from .transcript import Transcript

FORMAT, VERSION = "lazymlx document", "4"


def save_document(
    path: str | os.PathLike,
    model: Model,
    cache: LazyCache,
    tokens: list[int],
    transcript: Transcript,
    about: Mapping[str, Any],
) -> None:
    """Write a conversation to a file.

    Args:
        tokens: in the cache, by position.
        transcript: of what was said; it goes into the header.
        about: plain values, for `about`.

    Raises:
        StateError: a prompt is still being read.
        DocumentError: the file cannot be written, or the configuration's scorer is the program's own.
    """
    if cache.expected:
        raise StateError(f"a prompt is still being read: {cache.expected} of its tokens are to come")
    if cache.config.scorer is not None:
        raise DocumentError("document: a scorer of one's own cannot be saved; read it with the default scorer")
    ids = mx.array(tokens, mx.int32)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": model_fingerprint(model),
        "schedule": str(cache.config.schedule),
        "config": json.dumps(_config_values(cache.config)),
        "tokens": str(len(tokens)),
        "tokens_sha256": _digest(ids),
        "counts": json.dumps(_counts(cache)),
        "transcript": json.dumps(transcript.to_dict()),
        "about": json.dumps(about),
    }
    arrays = of_all_ranks(model, {"tokens": ids, **_arrays(cache)})
    model.ranks.decided("save", lambda: write_sealed(path, arrays, header))


def is_document(path: str | os.PathLike) -> bool:
    """Whether a file is a saved document, of whatever version."""
    return is_sealed(path, FORMAT)


def about(path: str | os.PathLike) -> dict[str, Any]:
    """What was said of a document when it was saved; reads nothing else of it.

    Raises:
        DocumentError: the file cannot be read, or is no document.
    """
    return _about(read_header(path, FORMAT))


def load_document(path: str | os.PathLike, model: Model) -> tuple[LazyCache, list[int], Transcript]:
    """Read what `save_document` wrote: the cache, its tokens and the transcript.

    Raises:
        DocumentError: the file cannot be read, is damaged, says what cannot be, or belongs to another model.
    """
    held: dict[str, mx.array] = {}
    header = model.ranks.decided("document", lambda: _read(path, model, held))
    with _believed(path):
        claims = Claims.of(header, model)
    like = one_token(model, claims.config, claims.packed)

    def forms() -> dict[str, ArrayForm]:
        with _believed(path):
            claims.check_arrays(held, like, model.vocab_size)
        if header.get("tokens_sha256") != _digest(held["tokens"]):
            raise DocumentError(f"document: {path} has other tokens than its header says; save it again")
        return {name: form_of(array) for name, array in held.items()}

    arrays = of_this_rank(model, held, model.ranks.decided("arrays", forms))
    return _cache_of(claims, arrays, model), np.array(arrays["tokens"]).tolist(), claims.transcript


def _read(path: str | os.PathLike, model: Model, held: dict[str, mx.array]) -> dict[str, str]:
    """The header of a file that was saved with this model; its arrays go to `held`."""
    arrays, header = read_sealed(path, FORMAT, VERSION)
    if header.get("model") != model_fingerprint(model):
        named = _about(header).get("model")
        raise DocumentError(
            f"document: {path} was saved with another model{f', {named}' if named else ''}; open it with that one"
        )
    held.update(arrays)
    return header


@contextmanager
def _believed(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except Unbelievable as error:
        raise DocumentError(
            f"document: {path} is no conversation of this model: {error}; read the text again"
        ) from None


def _about(header: dict[str, str]) -> dict[str, Any]:
    """What a header says, if a program has said anything."""
    try:
        said = json.loads(header.get("about", "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _cache_of(claims: Claims, arrays: dict[str, mx.array], model: Model) -> LazyCache:
    [cache] = model.make_cache(claims.config)
    cache.offset, cache.packed, cache.turn = claims.offset, claims.packed, claims.turn
    cache.queries = arrays.get("queries")
    asked = query_buffer(model.query_size).restored("asked", arrays)
    cache.prompt_queries = asked.padded(claims.asked - asked.capacity)
    packing = cache.config.packing if cache.packed else None
    for number, (stage, slots) in enumerate(zip(cache.stages, claims.slots, strict=True)):
        _fill_stage(stage, arrays, f"stage{number}", slots, packing)
    if "aux.depth" in arrays:
        cache.aux.lay_out(cache.aux.rows.restored("aux.rows", arrays), np.array(arrays["aux.depth"]))
        cache.aux.pad(claims.places, claims.rows)
    mx.eval(cache.state)
    return cache


def model_fingerprint(model: Model) -> str:
    """A hash of what a model is: its shape, and the names, types and first values of its weights."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(model.args), sort_keys=True, default=str).encode())
    for name, kind, values in model.identity or known(weights_of(model.parameters())):
        digest.update(f"{name} {kind} ".encode() + values)
    return digest.hexdigest()


def _digest(tokens: mx.array) -> str:
    return hashlib.sha256(np.array(tokens).tobytes()).hexdigest()


def _config_values(config: LazyConfig) -> dict[str, Any]:
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {**values, "schedule": [list(cut) for cut in config.cuts]}


def _counts(cache: LazyCache) -> dict[str, Any]:
    """The numbers that a conversation consists of, beside arrays."""
    return {
        "offset": cache.offset,
        "packed": cache.packed,
        "turn": cache.turn.to_dict(),
        "slots": [list(Slots.of(stage)) for stage in cache.stages],
        "places": cache.aux.places,
        "rows": cache.aux.rows.capacity,
        "asked": cache.prompt_queries.capacity,
    }


def _arrays(cache: LazyCache) -> dict[str, mx.array]:
    """What is in the buffers, without their empty places."""
    arrays = {} if cache.queries is None else {"queries": cache.queries}
    arrays |= cache.prompt_queries.of(slice(cache.offset)).named("asked")
    for number, stage in enumerate(cache.stages):
        if stage.filled:
            arrays[f"stage{number}.positions"] = stage.positions[: stage.filled]
            for n, layer in enumerate(stage.layers):
                arrays |= layer.keys.of(slice(stage.filled)).named(f"stage{number}.{n}.keys")
                arrays |= layer.values.of(slice(stage.filled)).named(f"stage{number}.{n}.values")
    if cache.config.cuts and cache.offset:
        depth = np.array(cache.aux.depth[: cache.offset])
        waiting = mx.array(np.flatnonzero(depth < len(cache.stages)).astype(np.int32))
        arrays |= {"aux.depth": mx.array(depth), **cache.aux.rows.of(cache.aux.slots[waiting]).named("aux.rows")}
    return arrays


def _fill_stage(
    stage: StageCache, arrays: dict[str, mx.array], name: str, slots: Slots, packing: tuple[int, int] | None
) -> None:
    empty = slots.capacity - slots.filled
    if packing is not None:
        for layer in stage.layers:
            layer.pack(*packing)
    if slots.filled:
        stage.positions = mx.pad(arrays[f"{name}.positions"], (0, empty))
        for n, layer in enumerate(stage.layers):
            layer.keys = layer.keys.restored(f"{name}.{n}.keys", arrays).padded(empty)
            layer.values = layer.values.restored(f"{name}.{n}.values", arrays).padded(empty)
    slots.restore(stage)
