"""What a saved document says of itself, checked: each number, and each array's name, shape, type and positions.

A seal proves that a file is as somebody wrote it, not that this program did. Positions that are none would be read
from memory that is not there, and a count of 2^60 would be waited for; so nothing is believed that does not fit the
model and the rest of the file. That the rows are what the model computes of the tokens cannot be seen from them.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import mlx.core as mx
import numpy as np

from ..cache.conversation import AHEAD
from ..cache.rows import STEP, RowBuffer
from ..cache.turn import Turn
from ..cache.undo import Slots
from ..config import MOST, LazyConfig
from ..engine.model import Model
from .heads import ASKED, all_queries, heads_axis
from .transcript import Transcript

Like = Mapping[str, tuple[mx.array, int]]  # by name: one token's part, and the axis of the tokens


class Unbelievable(Exception):
    """It says what cannot be."""


@dataclass(frozen=True)
class Claims:
    """The numbers and texts of a document's header.

    Attributes:
        config: resolved for the model.
        offset: tokens of the conversation.
        packed: keys and values are in few bits.
        slots: of each stage.
        places, rows: of the aux cache: of its tables of positions, and for hidden states.
        asked: for the queries of a prompt's tokens.
    """

    config: LazyConfig
    offset: int
    packed: bool
    turn: Turn
    slots: tuple[Slots, ...]
    places: int
    rows: int
    asked: int
    transcript: Transcript

    @classmethod
    def of(cls, header: Mapping[str, str], model: Model) -> "Claims":
        """Read a header.

        Raises:
            Unbelievable: a part is missing, of another kind, or out of its range.
        """
        try:
            values, counts = json.loads(header["config"]), json.loads(header["counts"])
            given = {**values, "schedule": [tuple(cut) for cut in values["schedule"]], "scorer": None}
            config = model.resolve(LazyConfig(**given))
            claims = cls(
                config,
                counts["offset"],
                counts["packed"],
                Turn.from_dict(counts["turn"]),
                tuple(Slots(*each) for each in counts["slots"]),
                counts["places"],
                counts["rows"],
                counts["asked"],
                Transcript.from_dict(json.loads(header["transcript"])),
            )
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise Unbelievable(f"its header cannot be read: {type(error).__name__}: {error}") from None
        claims._check_counts()
        claims._check_turn()
        return claims

    def _check_counts(self) -> None:
        _whole("offset", self.offset, 0, MOST)
        _hold(type(self.packed) is bool, "'packed' is true or false")
        _hold(not self.packed or self.config.kv_bits is not None, "what is packed has a number of bits")
        _hold(len(self.slots) == len(self.config.cuts) + 1, "there are as many stages as the schedule has")
        spare = AHEAD + 2 * STEP + 1 + (self.config.revive or 0)
        for stage, slots in enumerate(self.slots):
            _whole(f"tokens of stage {stage}", slots.filled, 0, self.offset)
            _whole(f"slots of stage {stage}", slots.capacity, slots.filled, 2 * slots.filled + spare)
        _hold(self.slots[0].filled == self.offset, "the first stage has every token")
        if self.config.cuts:
            _whole("places", self.places, self.offset, self.offset + 2 * STEP)
            _whole("rows", self.rows, 0, self.offset + 2 * STEP)
        _whole("asked", self.asked, 0, self.offset + 2 * STEP)

    def _check_turn(self) -> None:
        turn = self.turn
        for name in ("start", "queries_start", "end"):
            _whole(name, getattr(turn, name), 0, self.offset)
        for name in ("tail", "revived", "revived_layers"):
            _whole(name, getattr(turn, name), 0, MOST)
        for kept in turn.kept:
            _whole("kept", kept, 0, MOST)
        _hold(len(turn.kept) <= len(self.config.cuts), "there are not more counts of kept tokens than cuts")
        _hold(type(turn.complete) is bool and type(turn.reading) is bool, "a prompt is complete, and read, or not")
        least = 0
        for start, stop in turn.generated:
            _whole("a range of generated tokens", start, least, self.offset)
            _whole("a range of generated tokens", stop, start + 1, self.offset)
            least = stop

    def check_arrays(self, arrays: Mapping[str, mx.array], like: Like, vocab_size: int) -> None:
        """Compare the arrays with what the model would have made.

        Args:
            like: what it makes of one token, see `one_token`.

        Raises:
            Unbelievable: one is missing, unknown, of another shape or type, or names positions that there cannot be.
        """
        _fits("tokens", arrays, (self.offset,), mx.int32)
        tokens = np.array(arrays["tokens"])
        _in_range("tokens", tokens, 0, vocab_size)
        depth, waiting = np.zeros(0, np.int32), 0
        if self.config.cuts and self.offset:
            _fits("aux.depth", arrays, (self.offset,), mx.int32)
            depth = np.array(arrays["aux.depth"])
            _in_range("aux.depth", depth, 1, len(self.slots) + 1)
            waiting = int((depth < len(self.slots)).sum())
            _hold(waiting <= self.rows, "there are rows for all tokens that wait")
        self._check_positions(arrays, depth)
        self._check_rows(arrays, like, waiting)

    def _check_positions(self, arrays: Mapping[str, mx.array], depth: np.ndarray) -> None:
        """Each stage holds the tokens that the table says were computed in it, each once."""
        for number, slots in enumerate(self.slots):
            name = f"stage{number}.positions"
            if not slots.filled:
                _hold(number == 0 or not (depth > number).any(), f"{name} has the tokens that were computed there")
                continue
            _fits(name, arrays, (slots.filled,), mx.int32)
            positions = np.array(arrays[name])
            computed = np.flatnonzero(depth > number) if number else np.arange(self.offset)
            held = positions if number == 0 else np.sort(positions)  # the first stage holds them in their order
            _hold(np.array_equal(held, computed), f"{name} has the tokens that were computed there")

    def _check_rows(self, arrays: Mapping[str, mx.array], like: Like, waiting: int) -> None:
        counts = {f"stage{number}": slots.filled for number, slots in enumerate(self.slots)} | {"aux": waiting}
        known = {"tokens", "aux.depth", *(f"stage{number}.positions" for number in range(len(self.slots)))}
        if "queries" in arrays:
            least = most = min(self.config.window, self.offset - self.turn.queries_start)
            if not self.turn.reading:  # of an earlier prompt, nobody looks at them again
                least, most = 0, self.config.window
            counts["queries"] = _between("queries", arrays, 2, least, most)
        else:
            _hold(not self._lacks_queries(), "a prompt that is being read has its queries")
        if "asked" in arrays:
            counts["asked"] = _between("asked", arrays, 0, 1, min(self.asked, self.offset))
        for name, (part, axis) in like.items():
            count = counts.get(name.split(".")[0], 0)
            if count or name in arrays:
                _fits(name, arrays, _sized(part, axis, count), part.dtype)
        unknown = arrays.keys() - known - like.keys()
        _hold(not unknown, f"there is no array {min(unknown, default='')}")

    def _lacks_queries(self) -> bool:
        turn = self.turn
        return bool(self.config.cuts) and turn.reading and turn.queries_start < self.offset


def one_token(model: Model, config: LazyConfig, packed: bool) -> Like:
    """A conversation of one token, for the shapes and types of its arrays, by the names that they are saved under.
    Every rank must ask for it."""
    bits = {"kv_bits": config.kv_bits if packed else None, "quantized_kv_start": 0}
    token = mx.zeros((1, 1), mx.int32)
    [dense], [cut] = (model.make_cache(replace(config, **bits, **change)) for change in ({"schedule": ()}, {}))
    model(token, cache=[dense])
    cut.expect(1, complete=False)
    model(token, cache=[cut])
    parts = _parts("aux.rows", cut.aux.rows)
    if cut.prompt_queries.parts:
        asked = all_queries(model)
        asked.write(mx.zeros((1, model.query_size * model.ranks.size), model.dtype), 0, 1)
        parts |= _parts(ASKED, asked)
    if cut.queries is not None:
        parts["queries"] = cut.queries, 2
    for number in range(len(cut.stages)):
        start, stop = cut.layers_of(number)
        for n, layer in enumerate(dense.stages[0].layers[start:stop]):
            parts |= _parts(f"stage{number}.{n}.keys", layer.keys) | _parts(f"stage{number}.{n}.values", layer.values)
    return {name: (_of_all_heads(name, array, model), axis) for name, (array, axis) in parts.items()}


def _of_all_heads(name: str, array: mx.array, model: Model) -> mx.array:
    """An array as large as those of all ranks together."""
    axis = heads_axis(name)
    return array if axis is None else mx.repeat(array, model.ranks.size, axis)


def _parts(name: str, rows: RowBuffer) -> dict[str, tuple[mx.array, int]]:
    return {part: (array, rows.axis) for part, array in rows.named(name).items()}


def _sized(part: mx.array, axis: int, count: int) -> tuple[int, ...]:
    return (*part.shape[:axis], count, *part.shape[axis + 1 :])


def _between(name: str, arrays: Mapping[str, mx.array], axis: int, least: int, most: int) -> int:
    """How many tokens an array is of."""
    _hold(arrays[name].ndim > axis, f"{name} has an axis of tokens")
    count = arrays[name].shape[axis]
    _whole(f"tokens in {name}", count, least, most)
    return count


def _fits(name: str, arrays: Mapping[str, mx.array], shape: Collection[int], dtype: mx.Dtype) -> None:
    _hold(name in arrays, f"there is an array {name}")
    found = arrays[name]
    if found.shape != tuple(shape) or found.dtype != dtype:
        _refuse(f"{name} is {found.dtype} of shape {found.shape}, expected {dtype} of shape {tuple(shape)}")


def _in_range(name: str, values: np.ndarray, least: int, beyond: int) -> None:
    if len(values) and not least <= values.min() <= values.max() < beyond:
        _refuse(f"{name} has values from {values.min()} to {values.max()}, expected {least} to {beyond - 1}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        _refuse(f"{name}: expected a whole number from {least} to {most}, got {str(value)[:40]}")


def _hold(true: bool, expected: str) -> None:
    if not true:
        _refuse(f"expected that {expected}")


def _refuse(reason: str) -> NoReturn:
    raise Unbelievable(reason)
