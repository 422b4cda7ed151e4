"""A document that is sealed and says what cannot be is refused in one line; it is never believed."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from talking import DOCUMENT, LAZY, answer, cache_of, session, speller, talker

from lazymlx.config import LazyConfig
from lazymlx.errors import DocumentError, LazyMLXError
from lazymlx.sealed import read_sealed, write_sealed
from lazymlx.session.saved import FORMAT, VERSION
from lazymlx.session.session import Session

QUESTION, OTHER = "who keeps it?", "where is he from?"
LINKS = replace(LAZY, links=2)
Arrays, Header = dict[str, mx.array], dict[str, str]
Change = Callable[[Arrays, dict[str, Any]], object]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Of a document, an answer, and one more document that no question has followed yet."""
    path = tmp_path_factory.mktemp("saved") / "book"
    s = session(LINKS)
    s.read(DOCUMENT)
    answer(s, QUESTION, 3)
    s.read("it rains.")
    s.save(path)
    return path


def changed(book: Path, path: Path, change: Change) -> Path:
    """A sealed copy in which something is different."""
    arrays, header = read_sealed(book, FORMAT, VERSION)
    parts: dict[str, Any] = {name: json.loads(header[name]) for name in ("config", "counts", "transcript")}
    change(arrays, parts)
    write_sealed(path, arrays, {**header, **{name: json.dumps(value) for name, value in parts.items()}})
    return path


def count(name: str, value: object) -> Change:
    return lambda arrays, parts: parts["counts"].update({name: value})


def turn(name: str, value: object) -> Change:
    return lambda arrays, parts: parts["counts"]["turn"].update({name: value})


def config(name: str, value: object) -> Change:
    return lambda arrays, parts: parts["config"].update({name: value})


def slots(stage: int, value: object) -> Change:
    return lambda arrays, parts: parts["counts"]["slots"].__setitem__(stage, value)


def said(name: str, value: object) -> Change:
    return lambda arrays, parts: parts["transcript"].update({name: value})


def array(name: str, change: Callable[[mx.array], mx.array]) -> Change:
    return lambda arrays, parts: arrays.update({name: change(arrays[name])})


def without(name: str) -> Change:
    return lambda arrays, parts: arrays.pop(name)


def first_is(value: int) -> Callable[[mx.array], mx.array]:
    return lambda old: mx.concatenate([mx.array([value], old.dtype), old[1:]])


ATTACKS: dict[str, Change] = {
    "a huge offset": count("offset", 2**60),
    "an offset below zero": count("offset", -1),
    "an offset of another number of tokens": count("offset", 7),
    "an offset that is text": count("offset", "7"),
    "packed without bits": count("packed", True),
    "packed is a number": count("packed", 0),
    "huge places": count("places", 2**40),
    "no places": count("places", 0),
    "huge rows": count("rows", 2**40),
    "no rows": count("rows", 0),
    "huge asked": count("asked", 2**40),
    "no turn": count("turn", None),
    "a stage too many": lambda arrays, parts: parts["counts"]["slots"].append([0, 0]),
    "huge slots": slots(1, [3, 2**40]),
    "fewer slots than tokens": slots(0, [100, 1]),
    "slots below zero": slots(1, [-1, 256]),
    "slots of three numbers": slots(1, [1, 2, 3]),
    "a turn that begins later": turn("start", 10**6),
    "a turn that ends below zero": turn("end", -5),
    "queries of no tokens": lambda arrays, parts: parts["counts"]["turn"].update(
        queries_start=parts["counts"]["offset"]
    ),
    "a turn with a field of its own": turn("x", 1),
    "a huge tail": turn("tail", 2**70),
    "generated from nowhere": turn("generated", [[-3, 4]]),
    "generated backwards": turn("generated", [[9, 4]]),
    "generated without end": turn("generated", [[0, 2**50]]),
    "generated is no list": turn("generated", 5),
    "kept at more cuts": turn("kept", [1, 2, 3]),
    "kept is text": turn("kept", ["a"]),
    "reading is a word": turn("reading", "yes"),
    "a setting that is none": config("nonsense", 1),
    "a window of nothing": config("window", 0),
    "another window": config("window", 9),
    "a window of another kind": config("window", "9"),
    "a cut outside of the model": config("schedule", [[99, 0.5]]),
    "a schedule of text": config("schedule", "2:0.4"),
    "another schedule": config("schedule", [[2, 0.4]]),
    "bits that nothing is packed in": config("kv_bits", 7),
    "rows that were packed": config("aux_bits", 4),
    "a message without a role": said("messages", [{"content": "a"}]),
    "a message of numbers": said("messages", [{"role": "user", "content": 5}]),
    "messages are text": said("messages", "abc"),
    "documents are a number": said("documents", 1),
    "positions below zero": array("stage1.positions", first_is(-(2**20))),
    "positions beyond the end": array("stage1.positions", first_is(2**29)),
    "a position twice": array("stage1.positions", lambda old: mx.concatenate([old[1:2], old[1:]])),
    "positions of the first stage in another order": array("stage0.positions", lambda old: old[::-1]),
    "positions of another type": array("stage1.positions", lambda old: old.astype(mx.float32)),
    "depth of nothing": array("aux.depth", first_is(0)),
    "depth below zero": array("aux.depth", first_is(-7)),
    "depth beyond the model": array("aux.depth", first_is(9)),
    "another depth": array("aux.depth", lambda old: mx.full(old.shape, 1, old.dtype)),
    "a shorter depth": array("aux.depth", lambda old: old[:-1]),
    "fewer hidden states": array("aux.rows", lambda old: old[:-1]),
    "hidden states of another width": array("aux.rows", lambda old: old[:, :-1]),
    "fewer keys": array("stage1.0.keys", lambda old: old[:, :, :-1]),
    "keys of more heads": array("stage0.1.keys", lambda old: mx.concatenate([old, old], axis=1)),
    "values of another type": array("stage2.0.values", lambda old: old.astype(mx.float16)),
    "values of two conversations": array("stage2.0.values", lambda old: mx.concatenate([old, old])),
    "a number for queries": array("queries", lambda old: mx.array(1.0)),
    "fewer queries": array("queries", lambda old: old[:, :, :-1]),
    "no queries": without("queries"),
    "no tokens": without("tokens"),
    "no depth": without("aux.depth"),
    "no values": without("stage1.0.values"),
    "no positions": without("stage2.positions"),
    "nobody's array": lambda arrays, parts: arrays.update(more=mx.zeros(3)),
    "tokens that the model does not have": array("tokens", first_is(10**6)),
    "tokens below zero": array("tokens", first_is(-1)),
    "tokens of another type": array("tokens", lambda old: old.astype(mx.int16)),
    "more queries to be asked than tokens": array("asked", lambda old: mx.concatenate([old, old, old])),
    "queries to be asked of another width": array("asked", lambda old: old[:, :-1]),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_cannot_be_is_refused(attack: str, book: Path, tmp_path: Path) -> None:
    path = changed(book, tmp_path / "book", ATTACKS[attack])
    with pytest.raises(DocumentError, match="document: .*book ") as refusal:
        Session.open(path, talker(LINKS), speller())
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


@pytest.mark.parametrize("part", ["config", "counts", "transcript", "tokens_sha256", "model"])
@pytest.mark.parametrize("text", ["", "[" * 100_000, "1" * 5_000, "null", "{}"], ids=len)
def test_a_header_of_anything(part: str, text: str, book: Path, tmp_path: Path) -> None:
    arrays, header = read_sealed(book, FORMAT, VERSION)
    for changed_header in ({**header, part: text}, {k: v for k, v in header.items() if k != part}):
        write_sealed(tmp_path / "book", arrays, changed_header)
        with pytest.raises(DocumentError):
            Session.open(tmp_path / "book", talker(LINKS), speller())


def test_what_is_believed_can_be_asked(book: Path, tmp_path: Path) -> None:
    """Whatever number of a header is another one, the document is refused or answers."""
    draw, opened = random.Random(4), 0
    for _ in range(60):
        path = changed(book, tmp_path / "book", lambda arrays, parts: one_number(parts, draw))
        try:
            s = Session.open(path, talker(LINKS), speller())
        except DocumentError:
            continue
        try:
            assert np.isfinite(answer(s, OTHER, 3)[1]).all()
            opened += 1
        except LazyMLXError:
            continue
    assert opened


def one_number(parts: dict[str, Any], draw: random.Random) -> None:
    """Put another number in the place of one."""
    places = list(numbers({"counts": parts["counts"], "config": parts["config"]}))
    holder, name = draw.choice(places)
    holder[name] = draw.choice([-1, 0, 1, 2, holder[name] + 1, holder[name] * 2, 2**31, 2**63, 2**70])


def numbers(tree: Any) -> Any:
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            yield from numbers(value)
        elif type(value) in (int, float):
            yield tree, name


@pytest.mark.parametrize(
    "lazy", [LINKS, LazyConfig.paper("2:0.4,4:0.2"), LazyConfig.dense()], ids=["default", "paper", "dense"]
)
def test_statistics_are_the_same_after_it_was_opened(lazy: LazyConfig, tmp_path: Path) -> None:
    s = session(lazy)
    s.read(DOCUMENT)
    for question in (QUESTION, OTHER):
        answer(s, question)
        s.save(tmp_path / "book")
        again = Session.open(tmp_path / "book", talker(lazy), speller())
        assert replace(again.stats, ttft_s=None) == replace(s.stats, ttft_s=None)
        assert again.nbytes == cache_of(again).nbytes == cache_of(s).nbytes
    s.undo()
    s.save(tmp_path / "book")
    again = Session.open(tmp_path / "book", talker(lazy), speller())
    assert replace(again.stats, ttft_s=None) == replace(s.stats, ttft_s=None)
