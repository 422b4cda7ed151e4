"""Tiny random Llamas, and conversations that the oracle and the engine both go through.

`rehearse` plays a script on the oracle alone and writes down what must happen at every step; `perform` plays it on
the engine, fed as mlx-lm's loop feeds a model, and compares. What the engine computed is not taken from its tables
but noted by its layers (`NotingAttention`).

Two right programs may disagree about a near tie, since floats add up in another order. So a rehearsal ends before the
first choice that is one, and says so (`Rehearsal.clear`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count, pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from reference import SETTINGS, Positions, ReferenceLazyLLM, Shape, Step

from lazymlx.cache.conversation import LazyCache
from lazymlx.cache.stage import Span, StageCache
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.nn.attention import Attention, Rows

TOLERANCE = 1e-3  # of logits: the engine's are float32, the oracle's float64; a wrong token moves them by 0.1 and more
MARGIN = 1e-4  # relative; closer scores are a near tie

# --- models -----------------------------------------------------------------------------------------


def tiny_args(**changes) -> llama.ModelArgs:
    """A Llama of 6 layers with grouped heads."""
    tiny = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 6,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "vocab_size": 64,
        "tie_word_embeddings": False,
    }
    return llama.ModelArgs.from_dict({**tiny, **changes})


def stock_model(args: llama.ModelArgs, seed: int = 0) -> llama.Model:
    """mlx-lm's own model, with random weights that are large enough for peaked attention."""
    model, rng = llama.Model(args), np.random.default_rng(seed)
    weights = [
        (name, mx.array(rng.normal(1.0 if "norm" in name else 0.0, 0.3, size=w.shape).astype(np.float32)))
        for name, w in sorted(tree_flatten(model.parameters()))
    ]
    model.load_weights(weights)
    return model


def twin_of(stock: llama.Model) -> Model:
    """Our model with the same weights."""
    model = Model(stock.args)
    model.load_weights(tree_flatten(stock.parameters()))
    model.join()
    return model


def random_tokens(length: int, seed: int = 0, vocab: int = 64) -> list[int]:
    return np.random.default_rng(seed).integers(vocab, size=length).tolist()


def feed(model, caches: list, tokens: Sequence[int], chunk: int = 2048) -> mx.array:
    """Give a prompt to a model as mlx-lm's loop does: all but the last token in chunks, then the last one alone."""
    for start in range(0, len(tokens) - 1, chunk):
        model(mx.array([tokens[start : min(start + chunk, len(tokens) - 1)]]), cache=caches)
        mx.eval([cache.state for cache in caches])
    return model(mx.array([tokens[-1:]]), cache=caches)


def by_rows(model: Model, rows_at_a_time: int) -> Callable[..., mx.array | None]:
    """Our model as a loop calls it, but for the rows that it computes at a time behind the first cut."""

    def call(tokens: mx.array, cache: list[LazyCache]) -> mx.array | None:
        x = model.advance(model.embedded(tokens), cache[0], rows_at_a_time=rows_at_a_time).x
        return None if x is None else model.answer(x)

    return call


# --- what the engine's layers did -------------------------------------------------------------------


class Call(NamedTuple):
    """One call of a layer."""

    layer: int
    rows: np.ndarray  # positions, in the order of the rows
    mask: mx.array | str | None
    span: Span


@dataclass
class Notes:
    """The calls of all layers since they were last taken."""

    calls: list[Call] = field(default_factory=list)

    def take(self) -> list[Call]:
        calls, self.calls = self.calls, []
        return calls


class NotingAttention(Attention):
    """A layer's attention that writes down which rows it computes, and what they may see."""

    def __init__(self, args: llama.ModelArgs, theirs: Attention, layer: int, notes: Notes):
        super().__init__(args, theirs)
        self.layer, self.notes = layer, notes

    def __call__(self, x: mx.array, mask: mx.array | str | None, cache: Rows, onto: mx.array | None = None):
        self.notes.calls.append(Call(self.layer, np.array(cache.at(x.shape[1])), mask, cache.span))
        return super().__call__(x, mask, cache, onto)


def noting_model(stock: llama.Model) -> tuple[Model, Notes]:
    model, notes = Model(stock.args), Notes()
    for number, layer in enumerate(model.layers):
        layer.self_attn = NotingAttention(stock.args, layer.self_attn, number, notes)
    model.load_weights(tree_flatten(stock.parameters()))
    model.join()
    return model, notes


def held(stage: StageCache) -> list[int]:
    """Positions in a stage's slots, in order of arrival."""
    return np.array(stage.positions[: stage.filled]).tolist()


def computed_sets(cache: LazyCache) -> tuple[Positions, ...]:
    return tuple(frozenset(held(stage)) for stage in cache.stages)


# --- the oracle's side ------------------------------------------------------------------------------


class WatchedReference(ReferenceLazyLLM):
    """The oracle, watched for near ties, and able to forget its last tokens."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.margin = 1.0

    def watch(self, chosen: Positions, left: Positions, score: np.ndarray) -> None:
        if chosen and left:
            least, most = min(score[p] for p in chosen), max(score[p] for p in left)
            self.margin = min(self.margin, (least - most) / max(abs(least), 1e-30))

    def select(self, before, importance, keep, new, decode):
        selected = super().select(before, importance, keep, new, decode)
        candidates = before - self.protected(new)
        self.watch(candidates & selected, candidates - selected, importance)
        return selected

    def asked_in_turn(self, candidates, wide):
        asked = super().asked_in_turn(candidates, wide)
        self.watch(asked, candidates - asked, wide)
        return asked

    def back(self, waiting, importance, new):
        back = super().back(waiting, importance, new)
        scored = waiting - self.protected(new)
        self.watch(back & scored, scored - back, importance)
        return back

    def all_computed(self) -> tuple[Positions, ...]:
        return tuple(self.computed(stage) for stage in range(len(self.stages)))

    def trim(self, count: int) -> None:
        self.length -= count
        for rows in (*self.hidden, *self.keys, *self.values):
            for p in [p for p in rows if p >= self.length]:
                del rows[p]
        self.prompt_end = min(self.prompt_end, self.length)
        self.generated = frozenset(p for p in self.generated if p < self.length)


def oracle(stock: llama.Model, config: LazyConfig) -> WatchedReference:
    args = stock.args
    shape = Shape(args.num_hidden_layers, args.num_attention_heads, args.num_key_value_heads, args.head_dim)
    weights = {name: np.array(w) for name, w in tree_flatten(stock.parameters())}
    return WatchedReference(weights, shape, config.cuts, **{name: getattr(config, name) for name in SETTINGS})


@dataclass(frozen=True)
class Moment:
    """One event of a conversation, and what must be the case after it."""

    kind: str  # "prompt", "decode" or "trim"
    tokens: tuple[int, ...]
    step: Step | None  # None after a trim
    computed: tuple[Positions, ...]  # C_0 .. C_J
    length: int  # of the conversation
    revived: int  # tokens brought back so far


@dataclass(frozen=True)
class Rehearsal:
    stock: llama.Model
    config: LazyConfig
    moments: tuple[Moment, ...]
    clear: bool  # no near tie: the script was played to its end

    @property
    def steps(self) -> list[Step]:
        return [moment.step for moment in self.moments if moment.step is not None]

    @property
    def answers(self) -> list[Step]:
        return [moment.step for moment in self.moments if moment.step is not None and moment.kind == "decode"]


Script = Sequence[tuple[str, int]]  # ("prompt", tokens), ("decode", steps) or ("trim", tokens)


def unrolled(script: Script) -> Iterator[tuple[str, int]]:
    """One entry a step."""
    for kind, number in script:
        yield from [(kind, 1)] * number if kind == "decode" else [(kind, number)]


@cache
def rehearse(config: LazyConfig, script: tuple[tuple[str, int], ...], seed: int = 0, **changes) -> Rehearsal:
    """Play a script on the oracle; answers are its own greedy ones, prompts are random."""
    stock = stock_model(tiny_args(**changes), seed)
    reference, rng = oracle(stock, config), np.random.default_rng(seed)
    moments, step, revived = [], None, 0
    for kind, number in unrolled(script):
        if kind == "trim":
            reference.trim(min(number, reference.length - 1))
            moments.append(Moment(kind, (), None, reference.all_computed(), reference.length, revived))
            continue
        greedy = step is not None and kind == "decode"
        tokens = [int(step.logits.argmax())] if greedy else rng.integers(stock.args.vocab_size, size=number).tolist()
        step = reference.step(tokens, decode=kind == "decode")
        if reference.margin < MARGIN:
            return Rehearsal(stock, config, tuple(moments), clear=False)
        revived += sum(len(positions) for positions in step.revived)
        moments.append(Moment(kind, tuple(tokens), step, reference.all_computed(), reference.length, revived))
    return Rehearsal(stock, config, tuple(moments), clear=True)


def clear_rehearsal(config: LazyConfig, script: Script, **changes) -> Rehearsal:
    """The rehearsal with the first random weights that lead to no near tie."""
    rehearsals = (rehearse(config, tuple(script), seed, **changes) for seed in count())
    return next(rehearsal for rehearsal in rehearsals if rehearsal.clear)


# --- the engine's side ------------------------------------------------------------------------------


class Engine:
    """One conversation of a noting model, fed as mlx-lm's loop does it."""

    def __init__(self, stock: llama.Model, config: LazyConfig, *, chunk: int = 2048, announced: bool = True):
        self.config, self.chunk, self.announced = config, chunk, announced
        self.model, self.notes = noting_model(stock)
        self.caches = self.model.make_cache(config)

    @property
    def cache(self) -> LazyCache:
        return self.caches[0]

    def step(self, kind: str, tokens: Sequence[int]) -> mx.array:
        if kind == "prompt" and self.announced:
            self.cache.expect(len(tokens))
        return feed(by_rows(self.model, self.chunk), self.caches, tokens, self.chunk)

    def stage_of(self, layer: int) -> int:
        return sum(cut.layer <= layer for cut in self.config.cuts)

    def seen_by(self, position: int, calls: Sequence[Call], layer: int) -> list[int]:
        """Positions that a row attended to in a layer; one that it saw twice is listed twice."""
        call = next(call for call in calls if call.layer == layer and position in call.rows)
        table = np.array(self.cache.stages[self.stage_of(layer)].positions[: call.span.stop])
        if isinstance(call.mask, mx.array):
            table = table[np.array(call.mask)[call.rows.tolist().index(position)]]
        return sorted(table.tolist())


def rows_of(calls: Sequence[Call], layer: int) -> list[int]:
    """Positions that a layer computed."""
    return [p for call in calls if call.layer == layer for p in call.rows.tolist()]


class Performance(Engine):
    """The engine in a rehearsed conversation; every step is compared with the oracle's."""

    def __init__(self, rehearsal: Rehearsal, *, chunk: int = 2048, announced: bool = True, **changes):
        super().__init__(rehearsal.stock, replace(rehearsal.config, **changes), chunk=chunk, announced=announced)
        self.rehearsal = rehearsal

    def play(self, moments: Sequence[Moment] | None = None) -> None:
        for moment in self.rehearsal.moments if moments is None else moments:
            if moment.kind == "trim":
                self.cache.trim(self.cache.offset - moment.length)
            else:
                self.compare_step(moment, self.step(moment.kind, moment.tokens))
            self.compare_tables(moment)

    def compare_step(self, moment: Moment, logits: mx.array) -> None:
        """Logits, the rows that each layer computed, and what the last token saw there."""
        step, calls = moment.step, self.notes.take()
        np.testing.assert_allclose(np.array(logits[0, -1]), step.logits, atol=TOLERANCE)
        for layer in range(len(self.model.layers)):
            stage = self.stage_of(layer)
            assert sorted(rows_of(calls, layer)) == sorted(step.computed_now[stage]), f"rows of layer {layer}"
            seen = step.active[stage] if self.config.attend == "selected" else moment.computed[stage]
            assert self.seen_by(moment.length - 1, calls, layer) == sorted(seen), f"keys seen in layer {layer}"
        if moment.kind == "prompt":
            assert self.cache.turn.kept == tuple(len(active) for active in step.active[1:])

    def compare_tables(self, moment: Moment) -> None:
        """What the cache says of itself."""
        assert self.cache.offset == moment.length
        for stage, expected in zip(self.cache.stages, moment.computed, strict=True):
            assert sorted(held(stage)) == sorted(expected)
        counts = tuple(len(positions) for positions in moment.computed)
        assert self.cache.computed() == counts
        assert self.cache.aux.waiting_at == tuple(before - behind for before, behind in pairwise(counts))
        assert self.cache.stats().revived == moment.revived
        layers = [len(stage.layers) for stage in self.cache.stages[1:]] or [0]
        assert min(layers) * moment.revived <= self.cache.turn.revived_layers <= max(layers) * moment.revived
