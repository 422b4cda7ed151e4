"""A saved document has the keys, values and queries of all heads, however many ranks have them between them: they are
put together when it is saved, and split when it is opened, array by array."""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from ..cache.rows import RowBuffer
from ..engine.links import query_buffer
from ..engine.model import Model
from ..ranks.group import Ranks

Arrays = dict[str, mx.array]
ArrayForm = tuple[Sequence[int], str]
ASKED = "asked"


def heads_axis(name: str) -> int | None:
    """The axis along which an array of a document has heads; None if it has none."""
    return 1 if name.startswith("stage") and not name.endswith(".positions") or name == "queries" else None


def all_queries(model: Model) -> RowBuffer:
    """For the queries of a prompt's tokens in all heads, as they are saved."""
    return query_buffer(model.query_size * model.ranks.size)


def of_all_ranks(model: Model, arrays: Arrays) -> Arrays:
    """The arrays of a document, from those that each rank has; every rank gets them."""
    ranks = model.ranks
    if ranks.size == 1:
        return arrays
    together: Arrays = {}
    for name, array in arrays.items():
        axis = heads_axis(name)
        if not _is_asked(name):
            together[name] = array if axis is None else ranks.concatenate(array, axis)
            mx.eval(together[name])
    own, asked = query_buffer(model.query_size).restored(ASKED, arrays), all_queries(model)
    if own.parts and own.bits == asked.bits:
        together |= {name: ranks.concatenate(part, 1) for name, part in own.named(ASKED).items()}
    elif own.parts:  # a rank's queries are too short to be packed as all of them are
        asked.write(ranks.concatenate(own.at(mx.arange(own.capacity)), 1), 0, own.capacity)
        together |= asked.named(ASKED)
    mx.eval(together)
    return together


def of_this_rank(model: Model, arrays: Arrays, forms: Mapping[str, ArrayForm]) -> Arrays:
    """This rank's part of a document's arrays.

    Args:
        arrays: of the document, which rank 0 alone has to have.
        forms: of all of them.
    """
    ranks = model.ranks
    if ranks.size == 1:
        return arrays
    kept, asked = Arrays(), Arrays()
    for name, form in forms.items():
        array, axis = _of_first(ranks, arrays.get(name), *form), heads_axis(name)
        of = asked if _is_asked(name) else kept
        of[name] = array if axis is None else ranks.part(array, axis)
        mx.eval(of[name])
    every, own = all_queries(model).restored(ASKED, asked), query_buffer(model.query_size)
    if own.bits == every.bits:
        return kept | {name: ranks.part(each, 1) for name, each in asked.items()}
    if asked:
        own.write(ranks.part(every.at(mx.arange(every.capacity)), 1), 0, every.capacity)
    return kept | own.named(ASKED)


def form_of(array: mx.array) -> ArrayForm:
    """Shape and type, ready for JSON."""
    return list(array.shape), str(array.dtype).removeprefix("mlx.core.")


def _of_first(ranks: Ranks, array: mx.array | None, shape: Sequence[int], dtype: str) -> mx.array:
    """Rank 0's array, bit by bit."""
    array = mx.zeros(shape, getattr(mx, dtype)) if array is None else array
    return ranks.first(array.view(mx.uint8)).view(array.dtype) if array.size else array


def _is_asked(name: str) -> bool:
    return name.split(".")[0] == ASKED
