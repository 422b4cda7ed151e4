#!/usr/bin/env python3
"""Does anything that the engine sees at a cut tell beforehand that the answer will be wrong?

For every prompt, layer and keep: signals at the cut, and whether the lazy answer differs from the dense one. Prints the
AUC of each signal, per layer and over all layers, and writes every row, so that thresholds can be tried afterwards.
An AUC of 0.5 is a coin; above it, a high value of the signal warns, below it a low one.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from lazymlx.calibrate.measure import Dense, Meter, Reading, chat_tokens, log_softmax
from lazymlx.calibrate.prompts import Prompt, Writer
from lazymlx.config import Cut, LazyConfig
from lazymlx.demo import MODEL
from lazymlx.generation import template_tail
from lazymlx.loading import load
from lazymlx.selection import attention

AGAIN = (1, 48)  # last tokens that run again in a second try
OBSERVED = 3  # layers over which ranks are compared, as ASL does


class Layers:
    """Attention of the query window in the layers of a stage, for a prompt with its last token."""

    def __init__(self, model, tokens: Sequence[int], config: LazyConfig, tail: int, depth: int):
        self.N, self.config = len(tokens), config
        reading = Reading(model, mx.array([[*tokens, 0]]), tail)
        reading._go_on(depth)
        position = mx.arange(self.N)
        visible = position[None] <= position[self.N - config.window :, None]
        self.by_layer = []
        for number in range(depth):
            scale = model.family.attention_of(model.layers[number]).scale
            keys, _ = reading.by_layer.stages[number].pools[0].read(0, self.N)
            queries = reading.queries[number][0, :, -config.window :] * scale
            self.by_layer.append(np.array(attention(queries, keys[0], visible)))  # (H, W, N)
        self.candidates = np.ones(self.N, bool)
        self.candidates[: config.sink] = False
        self.candidates[self.N - max(config.recent + tail, config.window) :] = False

    def importance(self, layer: int) -> np.ndarray:
        return self.by_layer[layer].mean(axis=(0, 1))

    def chosen(self, layer: int, k: int) -> np.ndarray:
        """Positions of the `k` best candidates, the best first."""
        smooth = np.convolve(self.importance(layer), np.ones(self.config.pool) / self.config.pool, mode="same")
        smooth[~self.candidates] = -1
        return np.argsort(-smooth, kind="stable")[:k]

    def signals(self, cut: Cut) -> dict[str, float]:
        """What the engine could know at a cut, at next to no cost."""
        layer, k = cut.layer - 1, cut.count(self.N)
        heads, importance = self.by_layer[layer], self.importance(layer)
        chosen, open_mass = self.chosen(layer, k), importance[self.candidates].sum()
        share = importance[self.candidates] / open_mass
        last = heads[:, -1][:, self.candidates]
        last_share = last.mean(axis=0) / last.mean(axis=0).sum()
        ranks = np.stack([self._ranks(at) for at in range(max(layer - OBSERVED + 1, 0), layer + 1)])
        before = set(self.chosen(max(layer - 1, 0), k))
        return {
            "mass on candidates": open_mass,
            "kept share of it": importance[chosen].sum() / open_mass,
            "entropy": entropy(share),
            "top-1 share": share.max(),
            "entropy, last token": entropy(last_share),
            "top-1 share, last token": last_share.max(),
            "sharpest head": heads[:, :, self.candidates].max(),
            "sharpest head, last token": last.max(),
            "kept also by the layer before": len(before & set(chosen)) / k,
            "rank variance (ASL)": float(ranks[:, chosen].var(axis=0).mean()),
        }

    def _ranks(self, layer: int) -> np.ndarray:
        ranks = np.empty(self.N)
        ranks[self.chosen(layer, self.N)] = np.arange(self.N) / self.N
        return ranks


def entropy(share: np.ndarray) -> float:
    """In units of the most that there can be."""
    return float(-(share * np.log(share + 1e-30)).sum() / np.log(len(share)))


def rows(model, tokenizer, prompts: Sequence[Prompt], cuts: Sequence[Cut]) -> Iterator[dict]:
    """A prompt at a cut: signals, and what came of it."""
    meter, depth = Meter(model, tokenizer), max(cut.layer for cut in cuts)
    for number, prompt in enumerate(prompts):
        tokens = chat_tokens(tokenizer, prompt.text)
        tail = template_tail(tokenizer, tokens)
        configs = [LazyConfig((cut,), min_tokens=0, round_to=1) for cut in cuts]
        seen = Layers(model, tokens, configs[0], tail, depth)
        outcomes = meter(prompt, configs)
        reading = meter.readings.pop(prompt)
        for cut, config, outcome in zip(cuts, configs, outcomes, strict=True):
            first = np.sort(np.array(mx.exp(log_softmax(reading.start(config)[1]))))
            again = {
                f"wrong, {n} asked again": asked_again(reading, config, tokens[-n:], meter.dense[prompt]) for n in AGAIN
            }
            signals = {**seen.signals(cut), "answer's confidence": first[-1], "answer's margin": first[-1] - first[-2]}
            values = {name: round(float(value), 6) for name, value in signals.items()}
            about = {"prompt": number, "kind": prompt.kind, "layer": cut.layer, "keep": cut.keep}
            yield {**about, "wrong": outcome.differs, "kl": round(outcome.kl, 6), **again, **values}
        print(f"prompt {number + 1} of {len(prompts)}", file=sys.stderr, flush=True)


def asked_again(reading: Reading, config: LazyConfig, asked: Sequence[int], dense: Dense) -> bool:
    """Whether the answer still differs when the rest of the prompt is computed and its last tokens run once more."""
    cache, _ = reading.start(config)
    cache.trim(len(asked))
    cache.reading = True
    cache.config = replace(config, min_tokens=1 << 30)
    cache.expect(len(asked), tail=reading.tail)
    logits = reading.follow(cache, mx.array([asked]))
    for token in dense.answer:
        if int(logits.argmax()) != token:
            return True
        logits = reading.follow(cache, mx.array([[token]]))
    return False


def auc(wrong: np.ndarray, signal: np.ndarray) -> float:
    """Chance that a wrong answer's signal is higher than a right one's."""
    bad, good = signal[wrong], signal[~wrong]
    if not len(bad) or not len(good):
        return float("nan")
    return float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean())


def table(found: Sequence[dict], signals: Sequence[str]) -> Iterator[str]:
    """A line for each signal: its AUC at every layer and keep, and over all of them."""
    cells = sorted({(row["layer"], row["keep"]) for row in found})
    yield " ".join([f"{'':32}", *(f"{f'{layer}:{keep:g}':>8}" for layer, keep in cells), f"{'all':>8}"])
    groups = [[row for row in found if (row["layer"], row["keep"]) == cell] for cell in cells] + [list(found)]
    for name in [name for name in found[0] if name.startswith("wrong")]:
        yield " ".join([f"{name:32}", *(f"{sum(r[name] for r in g)}/{len(g)}".rjust(8) for g in groups)])
    for name in signals:
        values = [auc(np.array([r["wrong"] for r in g]), np.array([r[name] for r in g])) for g in groups]
        yield " ".join([f"{name:32}", *(f"{value:8.2f}" for value in values)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--cuts", default="5:0.25,6:0.25,7:0.25,8:0.25", help="single cuts, each tried by itself")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--seed", default="guard")
    parser.add_argument("--out", type=Path, required=True, help="for the rows, as JSON lines")
    args = parser.parse_args()
    cuts = [Cut(int(layer), float(keep)) for layer, keep in (part.split(":") for part in args.cuts.split(","))]
    model, tokenizer = load(args.model, LazyConfig.dense())
    prompts = Writer(Meter(model, tokenizer).count, args.seed).prompts(args.prompts, [args.length])
    found = []
    with args.out.open("w", encoding="utf-8") as file:
        for row in rows(model, tokenizer, prompts, cuts):
            found.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    print("\n".join(table(found, list(found[0])[6 + len(AGAIN) :])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
