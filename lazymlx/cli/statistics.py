"""What an answer cost, for people: mlx-lm's three lines word for word and ours below, or two answers side by side."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import LazyConfig
from ..schedule import Cut, Schedule
from ..stats import LazyStats
from ..units import megabytes
from .answering import TRACING, Answer
from .terminal import say

RULE = "=" * 10  # what mlx_lm.generate prints before and after an answer


def print_rule() -> None:
    """The line before and after an answer, which keeps it apart from the rest in a terminal."""
    print(RULE, file=sys.stderr, flush=True)


def print_statistics(answer: Answer, lazy: LazyConfig) -> None:
    """All that is known about an answer to a prompt with this configuration, on stderr."""
    print(*statistics(answer, lazy), sep="\n", file=sys.stderr, flush=True)


def statistics(answer: Answer, lazy: LazyConfig) -> list[str]:
    """The lines of `print_statistics`."""
    if answer.prompt_tps is None or answer.generation_tps is None:
        return [f"Prompt: {answer.prompt_tokens} tokens, interrupted before the first token of the answer"]
    return [
        *([] if answer.text else ["No text generated for this prompt"]),
        f"Prompt: {answer.prompt_tokens} tokens, {answer.prompt_tps:.3f} tokens-per-sec{_behind(answer)}",
        f"Generation: {answer.generation_tokens} tokens, {answer.generation_tps:.3f} tokens-per-sec",
        f"Peak memory: {', '.join(f'{peak:.3f} GB' for peak in answer.peaks or [answer.peak_memory])}{_each(answer)}",
        f"TTFT: {answer.lazy.ttft_s:.3f} s",
        f"Kept: {kept(answer.lazy, lazy)}",
        f"Computed: {computed(answer.lazy)}",
        f"Cache: {megabytes(answer.lazy.kv_bytes)} of keys and values, "
        f"{megabytes(answer.lazy.aux_bytes)} of tokens left behind",
    ]


def _behind(answer: Answer) -> str:
    """What a question about a saved document took, which its own tokens and their rate do not tell."""
    if answer.prompt_computed is None:
        return ""
    names = stage_names(answer.lazy)
    counts = ", ".join(f"{n} {name}" for n, name in zip(answer.prompt_computed, names, strict=True))
    before = answer.lazy.prompt_end - answer.prompt_tokens
    return f", behind {before} that were read before; computed for it: {counts}"


def kept(stats: LazyStats, lazy: LazyConfig) -> str:
    """How many of all tokens, the newest prompt's included, each cut let through, or why it was all."""
    context = stats.prompt_end
    if stats.mode == "dense":
        short = stats.schedule != "dense" and context < lazy.min_tokens
        why = f"fewer than the {lazy.min_tokens} of --min-tokens" if short else "nothing is left behind"
        return f"{context}/{context} tokens (100.0%), the dense path: {why}"
    return ", ".join(
        f"{count}/{context} tokens ({count / context:.1%}) from layer {cut.layer} on"
        for cut, count in zip(cuts(stats), stats.kept, strict=True)
    )


def computed(stats: LazyStats) -> str:
    """How many tokens ran through each stage, answers included, and what share of the dense model's work that is."""
    counts = ", ".join(f"{count} {name}" for name, count in zip(stage_names(stats), stats.computed, strict=True))
    return f"{counts} ({stats.computed_fraction:.1%} of the dense work); {revived(stats)}"


def revived(stats: LazyStats) -> str:
    """How many tokens came back, and what share of the dense model's work they took."""
    return f"{stats.revived} revived" + (f" ({stats.revived_fraction:.1%})" if stats.revived else "")


def stage_names(stats: LazyStats) -> list[str]:
    """What to call the stages: the layers before the first cut, and those from each cut on."""
    layers = [cut.layer for cut in cuts(stats)]
    if not layers:
        return ["in every layer"]
    return [f"in layers 0-{layers[0] - 1}", *(f"from layer {layer} on" for layer in layers)]


def cuts(stats: LazyStats) -> tuple[Cut, ...]:
    """The cuts that an answer was computed with."""
    return () if stats.schedule == "dense" else Schedule.of(stats.schedule).cuts


def _each(answer: Answer) -> str:
    return ", by rank; the cache below is of rank 0" if answer.peaks else ""


def print_comparison(lazy: Answer, dense: Answer) -> None:
    """Both answers side by side on stderr, and what was saved in one sentence."""
    Console(stderr=True, highlight=False).print(comparison(lazy, dense))
    assert lazy.lazy.ttft_s is not None and dense.lazy.ttft_s is not None
    say(
        f"{'the same answer' if lazy.text == dense.text else 'another answer'}, its first token "
        f"{dense.lazy.ttft_s / lazy.lazy.ttft_s:.2f} times as fast, with {lazy.lazy.computed_fraction:.1%} of the work"
    )


def comparison(lazy: Answer, dense: Answer) -> Table:
    """The table of `print_comparison`."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "lazy", "dense", "lazy : dense"):
        table.add_column(name, overflow="fold")
    same = "same" if lazy.text == dense.text else "different"
    table.add_row("Answer", Text(lazy.text), Text(dense.text), same)
    for name, ours, theirs, form in _rows(lazy, dense):
        table.add_row(name, form(ours), form(theirs), f"{ours / theirs:.2f}" if theirs else "")
    return table


def _rows(lazy: Answer, dense: Answer) -> Iterator[tuple[str, Any, Any, Callable[[Any], str]]]:
    """Name, lazy value, dense value and format of each line that compares numbers."""
    context = dense.lazy.context_tokens
    yield "TTFT", lazy.lazy.ttft_s, dense.lazy.ttft_s, "{:.3f} s".format
    for name, count in zip(stage_names(lazy.lazy), lazy.lazy.computed, strict=True):
        yield f"Tokens computed {name}", count, context, str
    yield "Work", lazy.lazy.computed_fraction, dense.lazy.computed_fraction, "{:.1%}".format
    if lazy.decode_tps and dense.decode_tps:
        name = f"Generation after {TRACING} tokens, tokens-per-sec"
        yield name, lazy.decode_tps, dense.decode_tps, "{:.1f}".format
    yield "Keys and values", lazy.lazy.kv_bytes, dense.lazy.kv_bytes, megabytes
    yield "Tokens left behind", lazy.lazy.aux_bytes, dense.lazy.aux_bytes, megabytes
    yield "Peak memory", lazy.peak_memory, dense.peak_memory, "{:.3f} GB".format


def to_dict(first: Answer, dense: Answer | None) -> dict[str, Any]:
    """Everything, ready for JSON: mlx-lm's figures, ours under "lazy", and the dense model's under "dense"."""
    content = {**first.figures(), "lazy": first.lazy.to_dict()}
    if dense is not None:
        content["dense"] = to_dict(dense, None)
    return content
