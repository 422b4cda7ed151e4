#!/usr/bin/env python3
"""One document, many questions: what later questions cost, beside mlx-lm with its prompt cache and without.

The embedded document, repeated to each length, is read once; then ten questions follow, each with a short answer. The
same transcript is given to stock mlx-lm on the same weights: with a cache that keeps everything, and with none. A shape
of random weights speaks the embedded model's vocabulary. Prints a table, and one line of JSON last.

    python scripts/bench_session.py --lengths 2048,4096
    python scripts/bench_session.py --shape llama-3-8b --schedules early steep
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.generate import stream_generate as stock_stream_generate
from mlx_lm.models.cache import make_prompt_cache, save_prompt_cache, trim_prompt_cache
from mlx_lm.utils import load_tokenizer
from rich.console import Console
from rich.table import Table

from lazymlx import LazyConfig, Session, demo
from lazymlx.bench.models import Pair, make_pair
from lazymlx.machine import machine
from lazymlx.session.transcript import Transcript, common_prefix

ASKED = (1, 2, 10)  # the questions that are reported
STEP = 2048  # tokens that stock reads at a time, its default


@dataclass(frozen=True)
class Result:
    """One way to hold a conversation. Seconds are medians over the repeats."""

    length: int  # tokens of the document
    name: str
    read_s: float | None  # the document, before there is a question; None: it is read with each question
    ttft_s: dict[int, float]  # of the first, second and tenth question
    held_bytes: dict[int, int]  # after each of them
    disk_bytes: int  # saved after the last
    tokens: int  # of the conversation, in the end


def pair_of(model: str | None, shape: str | None) -> Pair:
    """The two models, with a tokenizer."""
    pair = make_pair(model, shape, None)
    return pair if pair.tokenizer else replace(pair, tokenizer=load_tokenizer(demo.MODEL))


def spoken(pair: Pair) -> dict[str, Any]:
    """An option of both sides: only tokens that the tokenizer knows."""
    assert pair.tokenizer is not None
    size = len(pair.tokenizer.get_vocab())
    return {"logits_processors": [lambda tokens, logits: logits[..., :size]]}


def document_of(pair: Pair, length: int) -> str:
    """About `length` tokens of text."""
    assert pair.tokenizer is not None
    return pair.tokenizer.decode(pair.prompt(length - 16).tolist())


def questions(count: int) -> list[str]:
    asked = [question["question"] for question in demo.questions() if question["kind"] == "fact"]
    return (asked * count)[:count]


def lazy_run(pair: Pair, length: int, lazy: LazyConfig, count: int, max_tokens: int) -> tuple[Result, Transcript]:
    """lazymlx's Session; also the transcript, which the others then follow word for word."""
    assert pair.tokenizer is not None
    session, text = Session(pair.ours, pair.tokenizer, lazy=lazy), document_of(pair, length)
    start = perf_counter()
    session.read(text)
    read_s, ttft, held, transcript = perf_counter() - start, {}, {}, Transcript().with_document(text)
    for number, question in enumerate(questions(count), 1):
        start, first = perf_counter(), None
        for _ in session.ask(question, max_tokens, **spoken(pair)):
            first = first or perf_counter() - start
        assert first is not None
        ttft[number], held[number] = first, session.nbytes
        transcript = transcript.with_question(question).with_answer(session.messages[-1]["content"])
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder) / "document")
        disk = (Path(folder) / "document").stat().st_size
    name = f"lazymlx {session.config.schedule}"
    return Result(length, name, read_s, ttft, held, disk, session.stats.context_tokens), transcript


def stock_run(pair: Pair, length: int, transcript: Transcript, max_tokens: int, *, cached: bool) -> Result:
    """mlx-lm with the same questions and answers; without a cache, only the reported questions are asked."""
    assert pair.tokenizer is not None
    prompts = [
        Transcript(transcript.messages[: turn + 1]).tokens(pair.tokenizer)
        for turn in range(0, len(transcript.messages), 2)
    ]
    cache, held_tokens, read_s, ttft, held = make_prompt_cache(pair.stock), list[int](), None, {}, {}
    if cached:
        start, document = perf_counter(), prompts[0][: length - 16]
        for at in range(0, len(document) - 1, STEP):  # as mlx-lm's own loop does
            pair.stock(mx.array([document[:-1][at : at + STEP]]), cache=cache)
            mx.eval([c.state for c in cache])
        held_tokens, read_s = document[:-1], perf_counter() - start
    for number, prompt in enumerate(prompts, 1):
        if not cached and number not in ASKED:
            continue
        if not cached:
            cache, held_tokens = make_prompt_cache(pair.stock), []
        common = min(common_prefix(held_tokens, prompt), len(prompt) - 1)
        trim_prompt_cache(cache, len(held_tokens) - common)
        start, first, said = perf_counter(), None, []
        options = {"max_tokens": max_tokens, "prompt_cache": cache, **spoken(pair)}
        for response in stock_stream_generate(pair.stock, pair.tokenizer, prompt[common:], **options):
            first = first or perf_counter() - start
            said.append(response.token)
        assert first is not None
        held_tokens = prompt + said
        ttft[number], held[number] = first, sum(c.nbytes for c in cache)
    with tempfile.TemporaryDirectory() as folder:
        save_prompt_cache(str(Path(folder) / "cache.safetensors"), cache)
        disk = (Path(folder) / "cache.safetensors").stat().st_size
    name = "mlx-lm, prompt cache" if cached else "mlx-lm, no cache"
    return Result(length, name, read_s, ttft, held, disk, cache[0].offset)


def median_of(results: Sequence[Result]) -> Result:
    """The results of one way, repeated; sizes do not differ."""
    first = results[0]
    ttft = {number: median(result.ttft_s[number] for result in results) for number in ASKED if number in first.ttft_s}
    reads = [result.read_s for result in results if result.read_s is not None]
    held = {number: first.held_bytes[number] for number in ttft}
    read_s = median(reads) if reads else None
    return Result(first.length, first.name, read_s, ttft, held, first.disk_bytes, first.tokens)


def measure(pair: Pair, length: int, schedules: Sequence[str], count: int, max_tokens: int, repeats: int):
    """All ways at one length, alternating."""
    runs: dict[str, list[Result]] = {}
    for _ in range(repeats):
        for schedule in schedules:
            result, transcript = lazy_run(pair, length, LazyConfig(schedule, min_tokens=0), count, max_tokens)
            runs.setdefault(result.name, []).append(result)
        for cached in (True, False):
            result = stock_run(pair, length, transcript, max_tokens, cached=cached)
            runs.setdefault(result.name, []).append(result)
    return [median_of(results) for results in runs.values()]


def table_of(results: Sequence[Result]) -> Table:
    table = Table(
        "tokens", "", "read", *(f"TTFT {n}" for n in ASKED), "2nd : 1st", "MB held", "of mlx-lm's", "MB on disk"
    )
    for result in results:
        last = max(result.held_bytes)
        full = next(r for r in results if r.length == result.length and r.name == "mlx-lm, prompt cache")
        table.add_row(
            str(result.length),
            result.name,
            "" if result.read_s is None else f"{result.read_s:.2f} s",
            *(f"{result.ttft_s[n]:.3f} s" if n in result.ttft_s else "" for n in ASKED),
            f"{result.ttft_s[2] / result.ttft_s[1]:.2f}",
            " / ".join(f"{result.held_bytes[n] / 1e6:.1f}" for n in sorted({1, last})),
            f"{result.held_bytes[1] / full.held_bytes[1]:.2f}",
            f"{result.disk_bytes / 1e6:.1f}",
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model's folder or Hub name (default: the embedded model)")
    parser.add_argument("--shape", help="random weights of this shape instead, see 'lazymlx bench --help'")
    parser.add_argument("--lengths", default="2048,4096", help="of the document, in tokens (default: %(default)s)")
    parser.add_argument("--schedules", nargs="+", default=["auto"], help="(default: the model's own)")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    pair = pair_of(args.model, args.shape)
    schedules = [pair.own_schedule if schedule == "auto" else schedule for schedule in args.schedules]
    results: list[Result] = []
    for length in map(int, args.lengths.split(",")):
        results += measure(pair, length, schedules, args.questions, args.max_tokens, args.repeats)
        print(f"{length} tokens: done", file=sys.stderr)
    Console(width=150).print(table_of(results))
    model = {**pair.describe, "random": args.shape is not None}
    print(json.dumps({"machine": machine(), "model": model, "results": [asdict(r) for r in results]}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
