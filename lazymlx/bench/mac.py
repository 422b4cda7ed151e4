"""What a Mac's owner measures in ten minutes, each figure beside what MLX's sources had predicted for the chip.

It runs anywhere; on other devices its figures say nothing of Metal, and the block says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import mlx.core as mx

from ..config import LazyConfig
from ..costs.flops import Sizes, ideal_speedup
from ..costs.metal import Chip, decode_cost, kernel, step_cost
from ..nn.attend import attend, attend_few
from ..nn.backend import FUSED, SPLIT, trying
from .models import GROUP_SIZE, Pair
from .plan import BenchVariant
from .runs import timed

ROWS = (1, 2, 4, 5, 8, 16, 32, 64)
RHYTHMS = ((7, 2), (3, 2), (3, 1), (31, 9), (31, 16))  # tokens that come back, every so many tokens of an answer
SCHEDULE = "early"
HEADS, KV_HEADS, HEAD_SIZE = 32, 8, 128  # Llama 3 8B's
REPEATS = 5


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        inputs, outputs, matrices: of the packed weights that rows are multiplied with.
        keys: that few rows attend to.
        lengths: of prompts.
        tokens: of each answer.
    """

    inputs: int = 4096
    outputs: int = 14336
    matrices: int = 8
    keys: int = 32768
    lengths: tuple[int, ...] = (2048, 8192, 16384)
    tokens: int = 64


QUICK = Scale(keys=8192, lengths=(2048,), tokens=32)
SMALL = Scale(inputs=256, outputs=512, matrices=2, keys=512, lengths=(256,), tokens=32)  # where nothing is fast


class Figure(NamedTuple):
    """A figure and its prediction, None where there is none."""

    name: str
    measured: float
    predicted: float | None
    unit: str = "x"


def measured(pair: Pair, chip: Chip | None, scale: Scale, fresh: Callable[[], float] | None) -> Iterator[Figure]:
    """All figures, one by one.

    Args:
        chip: for the predictions.
        fresh: measures the first answer of a fresh process; None where the model is in no folder.
    """
    yield from first_tokens(pair, fresh)
    yield from row_curve(chip, scale)
    yield from few_rows(scale)
    yield from rhythms(pair, chip, scale)
    yield from prompts(pair, scale)


def first_tokens(pair: Pair, fresh: Callable[[], float] | None) -> Iterator[Figure]:
    """The first prompt of this process, the same again, and one of a process of its own."""
    variant, prompt = _lazy(pair), pair.prompt(256)
    yield Figure("first token of the first prompt", timed(pair, variant, prompt, 3)[0], None, "s")
    yield Figure("first token of the next prompt", timed(pair, variant, prompt, 3)[0], None, "s")
    if fresh is not None:
        yield Figure("first answer of a fresh process", fresh(), None, "s")


def row_curve(chip: Chip | None, scale: Scale) -> Iterator[Figure]:
    """Rows with packed weights, over a single row: the kernel that the sources name, and the cost."""
    weights = [
        mx.quantize(mx.random.normal((scale.outputs, scale.inputs)), group_size=GROUP_SIZE, bits=4)
        for _ in range(scale.matrices)
    ]
    mx.eval(weights)

    def products(rows: mx.array) -> list[mx.array]:
        return [mx.quantized_matmul(rows, *packed, group_size=GROUP_SIZE, bits=4) for packed in weights]

    single = 0.0
    for count in ROWS:
        seconds = _seconds(products, mx.random.normal((count, scale.inputs)))
        single = single or seconds
        if chip is None:
            yield Figure(f"{count} rows", seconds / single, None)
        else:
            name, passes = kernel(chip, count, scale.inputs, scale.outputs)
            yield Figure(f"{count} rows ({name}, {passes})", seconds / single, step_cost(chip, count))


def few_rows(scale: Scale) -> Iterator[Figure]:
    """Eight rows and four with a mask, by fused attention and by split products."""
    half = mx.float16
    keys, values = (mx.random.normal((1, KV_HEADS, scale.keys, HEAD_SIZE)).astype(half) for _ in range(2))
    for count in (8, 4):
        queries = mx.random.normal((1, HEADS, count, HEAD_SIZE)).astype(half)
        mask = mx.arange(scale.keys)[None] < scale.keys - mx.arange(count)[:, None]
        mx.eval(keys, values, queries, mask)
        with trying(FUSED):
            fused = _seconds(lambda q, m=mask: attend(q, keys, values, scale=HEAD_SIZE**-0.5, mask=m), queries)
        with trying(SPLIT):
            split = _seconds(lambda q, m=mask: attend_few(q, keys, values, HEAD_SIZE**-0.5, m)[0], queries)
        yield Figure(f"attention of {count} rows to {scale.keys} keys, fused", 1000 * fused, None, "ms")
        yield Figure(f"attention of {count} rows, split over fused", split / fused, None)


def rhythms(pair: Pair, chip: Chip | None, scale: Scale) -> Iterator[Figure]:
    """A token of an answer, by how many come back how often, over one where none do."""
    prompt, single = pair.prompt(scale.lengths[0]), 0.0
    first = pair.ours.resolve(LazyConfig(SCHEDULE)).cuts[0].layer / len(pair.ours.layers)
    for revive, every in ((0, 1), *RHYTHMS):
        variant = _lazy(pair, revive=revive, revive_every=every)
        timed(pair, variant, prompt, every + 1)  # kernels are compiled
        rate = timed(pair, variant, prompt, scale.tokens)[1]
        assert rate is not None
        single = single or rate
        if revive:
            predicted = None if chip is None else decode_cost(chip, revive, every, first)
            yield Figure(f"decode, {revive} come back every {every}", single / rate, predicted)
        else:
            yield Figure("decode, none come back", rate, None, "tokens/s")


def prompts(pair: Pair, scale: Scale) -> Iterator[Figure]:
    """Time to the first token, over stock mlx-lm's and over the dense model's; the latter as the operations predict."""
    sizes = Sizes.of(pair.args, pair.ours.windows)
    stock, dense, lazy = BenchVariant("stock", None, 2048), BenchVariant("dense", LazyConfig.dense(), 2048), _lazy(pair)
    for length in scale.lengths:
        prompt, seconds = pair.prompt(length), dict[str, float]()
        for variant in (stock, dense, lazy):
            timed(pair, variant, prompt)
            seconds[variant.name] = timed(pair, variant, prompt)[0]
        ideal = None
        if sizes is not None and lazy.lazy is not None:
            ideal = ideal_speedup(sizes, lazy.lazy.cuts, length)
        yield Figure(f"{length} tokens, stock", seconds["stock"], None, "s")
        yield Figure(f"{length} tokens, dense faster than stock", seconds["stock"] / seconds["dense"], 1.0)
        yield Figure(f"{length} tokens, {SCHEDULE} faster than dense", seconds["dense"] / seconds[lazy.name], ideal)


def block(figures: list[Figure], on: dict[str, Any], model: str) -> str:
    """What to paste into an issue."""
    units = {None: "none", True: "in use", False: "not in use"}[on["matrix_units"]]
    lines = [
        "```",
        f"lazymlx bench --mac, {model}",
        f"{on['chip']}, {on['architecture']}, macOS {on['macos'] or '-'}, device {on['device']}, matrix units {units}",
        f"lazymlx {on['lazymlx']} {on['commit'] or ''}, mlx {on['mlx']}, mlx-lm {on['mlx_lm']}, Python {on['python']}",
    ]
    if on["device"] != "metal":
        lines.append(f"unmeasured on Metal: this ran on {on['device']}, and says nothing of a Mac")
    lines.append(f"{'':46} {'measured':>9} {'predicted':>9} {'':8} off by")
    return "\n".join([*lines, *map(_line, figures), "```"])


def _line(figure: Figure) -> str:
    predicted = "-" if figure.predicted is None else f"{figure.predicted:.2f}"
    off = "" if figure.predicted is None else f"{figure.measured / figure.predicted - 1:+.0%}"
    return f"{figure.name:46} {figure.measured:9.2f} {predicted:>9} {figure.unit:8} {off}".rstrip()


def _lazy(pair: Pair, **changes: Any) -> BenchVariant:
    return BenchVariant(SCHEDULE, pair.ours.resolve(LazyConfig(SCHEDULE, min_tokens=0, **changes)), 2048)


def _seconds(compute: Callable[[mx.array], Any], given: mx.array) -> float:
    """The median of a few runs, behind one that compiles."""
    times = []
    for _ in range(1 + REPEATS):
        begin = perf_counter()
        mx.eval(compute(given))
        times.append(perf_counter() - begin)
    return median(times[1:])
