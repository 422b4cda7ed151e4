#!/usr/bin/env python3
"""Does anything that the engine sees at a cut tell beforehand that the answer will be wrong?

For every prompt, layer and keep: signals at the cut, whether the lazy answer differs from the dense one, and whether it
still does when the rest of the prompt is computed and the last tokens run once more. Prints the AUC of each signal, per
cut and over all cuts (0.5 is a coin; above it, a high value warns, below it a low one), and what a guard on the first
token's probability would save, and how often it would fire.
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
from lazymlx.config import Cut, LazyConfig, Schedule
from lazymlx.demo import MODEL
from lazymlx.engine.selection import attention
from lazymlx.errors import LazyMLXError
from lazymlx.files import check_file, holds, write_json
from lazymlx.generation import template_tail
from lazymlx.loading.load import load
from lazymlx.machine import machine
from lazymlx.nn.attend import unpacked

ABOUT = ("prompt", "kind", "layer", "keep", "kl")
CONFIDENCE = "answer's confidence"
THRESHOLDS = (0, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99)  # of the guard; 0 is none
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
            self.by_layer.append(np.array(attention(queries, unpacked(keys).squeeze(0), visible)))  # (H, W, N)
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
            signals = {**seen.signals(cut), CONFIDENCE: first[-1], "answer's margin": first[-1] - first[-2]}
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


def auc(wrong: np.ndarray, signal: np.ndarray) -> float | None:
    """Chance that a wrong answer's signal is higher than a right one's; None if there are not both."""
    bad, good = signal[wrong], signal[~wrong]
    if not len(bad) or not len(good):
        return None
    return round(float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()), 3)


def summary(found: Sequence[dict]) -> dict[str, dict]:
    """For each cut, and for all of them: wrong answers, every signal's AUC, what a guard would save and cost."""
    groups = {f"{row['layer']}:{row['keep']:g}": [] for row in found} | {"all": list(found)}
    for row in found:
        groups[f"{row['layer']}:{row['keep']:g}"].append(row)
    return {name: _summary(rows) for name, rows in groups.items()}


def _summary(rows: Sequence[dict]) -> dict:
    signals = [name for name in rows[0] if name not in ABOUT and not name.startswith("wrong")]
    wrong, confidence = (np.array([row[name] for row in rows]) for name in ("wrong", CONFIDENCE))
    again = np.array([row["wrong, 1 asked again"] for row in rows])
    fires = {at: confidence < at for at in THRESHOLDS}
    return {
        "prompts": len(rows),
        **{name: sum(row[name] for row in rows) for name in rows[0] if name.startswith("wrong")},
        "auc": {name: auc(wrong, np.array([row[name] for row in rows])) for name in signals},
        "guard": [
            {"at": at, "fires": int(when.sum()), "wrong": int(np.where(when, again, wrong).sum())}
            for at, when in fires.items()
        ],
    }


def lines(cells: dict[str, dict]) -> Iterator[str]:
    """The summary as a table."""
    some = next(iter(cells.values()))
    yield " ".join([f"{'':32}", *(f"{name:>8}" for name in cells)])
    for name in (name for name in some if name.startswith("wrong")):
        yield " ".join([f"{name:32}", *(f"{cell[name]}/{cell['prompts']}".rjust(8) for cell in cells.values())])
    for name in some["auc"]:
        values = (cell["auc"][name] for cell in cells.values())
        yield " ".join([f"{name:32}", *("-".rjust(8) if value is None else f"{value:8.2f}" for value in values)])
    for i, at in enumerate(THRESHOLDS):
        cost = (f"{c['guard'][i]['wrong']} ({c['guard'][i]['fires']})".rjust(8) for c in cells.values())
        yield " ".join([f"wrong (fires), guard {at:g}".ljust(32), *cost])


def plot(cells: dict[str, dict], model: str, path: Path) -> None:
    """Wrong answers over how often the guard fires, a line for each cut and a point for each threshold."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, cell in cells.items():
        if name != "all":
            x, y = ([100 * point[what] / cell["prompts"] for point in cell["guard"]] for what in ("fires", "wrong"))
            axis.plot(x, y, marker="o", label=f"cut {name}")
    axis.set(xlabel="prompts computed in full, %", ylabel="answers that differ from the dense model's, %")
    axis.set_title(f"{model}: guard {', '.join(f'{at:g}' for at in THRESHOLDS)}", fontsize=10)
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--name", help="of the model, in the figure (default: its folder's)")
    parser.add_argument("--cuts", default="6:0.25,7:0.25,8:0.25", help="single cuts, each tried by itself")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--seed", default="guard")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines: written, or read if they are there")
    parser.add_argument("--out", type=Path, help="the summary, as JSON, and beside it the figure")
    args = parser.parse_args()
    try:
        check_file(args.rows, "--rows", lambda there: True)  # what is there is read
        if args.out is not None:
            check_file(args.out, "--out", lambda there: holds(there, "cuts"))
        return study(args)
    except LazyMLXError as error:
        print(f"guard_study: {error}", file=sys.stderr)
        return error.exit_code


def study(args: argparse.Namespace) -> int:
    """Measure what was not measured yet, and sum it up."""
    if not args.rows.exists():
        measure(args)
    found = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    cells, name = summary(found), args.name or Path(args.model).name
    print("\n".join(lines(cells)))
    if args.out is not None:
        content = {"model": name, "length": args.length, "machine": machine(), "cuts": cells}
        write_json(args.out, content, "--out")
        plot(cells, name, args.out.with_suffix(".png"))
    return 0


def measure(args: argparse.Namespace) -> None:
    """Measure row by row."""
    cuts = [Schedule.of(part).cuts[0] for part in args.cuts.split(",")]
    model, tokenizer = load(args.model, LazyConfig.dense())
    prompts = Writer(Meter(model, tokenizer).count, args.seed).prompts(args.prompts, [args.length])
    unfinished = args.rows.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for row in rows(model, tokenizer, prompts, cuts):
            file.write(json.dumps(row) + "\n")
            file.flush()
    unfinished.replace(args.rows)


if __name__ == "__main__":
    sys.exit(main())
