"""Looking ahead in plain NumPy: prompts and follow-ups, set by set, beside `reference.ReferenceLazyLLM`.

Every token has a depth: the cut at which it waits, or the number of cuts and one more. A layer of stage s has exact
keys of the tokens that are deeper than s; for all others they are predicted from the hidden state at their cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from reference import Llama, attention_probabilities, best, kept_count, rotate

from lazymlx.nn.maps import CutMap, Factor, LayerMap, Maps

POOL = 63  # neighbours at least, where looking decides, and the token itself once more
Linear = tuple[np.ndarray, np.ndarray]  # weight (N, D) and bias (N,), to keys and values


class Settings(NamedTuple):
    cuts: tuple[tuple[int, float], ...]
    lookahead: int = 16
    window: int = 4
    pool: int = 5
    sink: int = 2
    recent: int = 4
    seen: bool = True
    revive: int = 3
    revive_every: int = 2


@dataclass
class LookingReference:
    """One conversation; `maps[cut's layer][layer]` predict."""

    llama: Llama
    maps: dict[int, dict[int, Linear]]
    settings: Settings
    depth: dict[int, int] = field(default_factory=dict)
    hidden: dict[int, np.ndarray] = field(default_factory=dict)  # at the cut where a token waits
    exact: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # by layer and position
    end: int = 0  # of the newest prompt
    kept: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # filled, for its answer
    paid: dict[int, float] = field(default_factory=dict)  # what the tokens of its answer attended to

    def stage(self, layer: int) -> int:
        return sum(cut <= layer for cut, _ in self.settings.cuts)

    def layers(self, stage: int) -> range:
        edges = [0, *(cut for cut, _ in self.settings.cuts), self.llama.shape.layers]
        return range(edges[stage], edges[stage + 1])

    def known(self, layer: int, positions: Sequence[int], filled: bool) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Positions of those of whom a layer has keys and values, exact ones or filled ones."""
        found, keys, values = [], [], []
        for p in positions:
            pair = self.exact.get((layer, p)) or (self.fill(layer, p) if filled else None)
            if pair is not None:
                found.append(p), keys.append(pair[0]), values.append(pair[1])
        shape = (-1, self.llama.shape.kv_heads, self.llama.shape.head_dim)
        return found, np.array(keys).reshape(shape), np.array(values).reshape(shape)

    def fill(self, layer: int, p: int) -> tuple[np.ndarray, np.ndarray] | None:
        if not 1 <= self.depth[p] <= self.stage(layer):
            return None
        if (layer, p) in self.kept:
            return self.kept[layer, p]
        weight, bias = self.maps[self.settings.cuts[self.depth[p] - 1][0]][layer]
        x = self.hidden[p]
        y = (weight @ (x / np.sqrt((x**2).mean() + 1e-6)) + bias).reshape(2, self.llama.shape.kv_heads, -1)
        return rotate(y[:1], np.array([p]), self.llama.shape.rope_theta)[0], y[1]

    def through(self, layer: int, x: np.ndarray, at: list[int], others: list[int], filled: bool, keep: bool):
        """Rows through a layer: their outputs, their attention `(H, L, S)`, and the positions that it goes to."""
        q, k, v = self.llama.qkv(layer, x, at)
        found, keys, values = self.known(layer, [p for p in others if p not in set(at)], filled)
        keys, values, seen = np.concatenate([keys, k]), np.concatenate([values, v]), [*found, *at]
        mask = self.llama.sees(layer, at, seen)
        if keep:
            self.exact |= {(layer, p): (k[i], v[i]) for i, p in enumerate(at)}
        out = self.llama.layer(layer, x, q, keys, values, mask)
        return out, attention_probabilities(q, keys, mask), seen

    def importance(self, number: int, new: list[int]) -> np.ndarray:
        settings, at = self.settings, new[-self.settings.lookahead :]
        x, total = np.array([self.hidden[p] for p in at]), np.zeros(len(self.depth))
        cut = settings.cuts[number - 1][0]
        for layer in range(cut, cut + (self.llama.shape.layers - cut + 1) // 2):
            x, paid, seen = self.through(layer, x, at, sorted(self.depth), True, keep=False)
            total[seen] += paid[:, -settings.window :].max(axis=(0, 1))
        return total

    def ask(self, tokens: Sequence[int]) -> np.ndarray:
        """Take in a prompt; logits of its last token. Nothing was generated before."""
        settings, start = self.settings, len(self.depth)
        N = start + len(tokens)
        new, everyone = list(range(start, N)), list(range(N))
        x = self.llama.embed(tokens)
        self.depth |= dict.fromkeys(new, 0)
        for layer in self.layers(0):
            x, _, _ = self.through(layer, x, new, everyone, False, keep=True)
        self.hidden |= dict(zip(new, x, strict=True))
        self.depth |= dict.fromkeys(new, 1)
        looking = max(min(settings.lookahead, len(new)), min(settings.window, len(new)))
        safe = {*range(settings.sink), *range(N - settings.recent, N), *range(N - looking, N)}
        active = set(everyone)
        for number, (_, keep) in enumerate(settings.cuts, 1):
            total = self.importance(number, new)
            smooth = np.zeros(N)
            for p in everyone:
                wide = max(settings.pool, POOL) // 2
                near = [i for i in range(p - wide, p + wide + 1) if i in active]
                smooth[p] = (np.mean(total[near]) if near else 0.0) + total[p] / POOL
            active = safe | best(active - safe, smooth, min(kept_count(keep, N), len(active - safe)))
            come = sorted(p for p in active if self.depth[p] == number)
            x = np.array([self.hidden[p] for p in come])
            self.depth |= dict.fromkeys(come, number + 1)
            asking = min(settings.lookahead, len(new))
            parts = [(slice(None, -asking), False), (slice(-asking, None), settings.seen)]
            for layer in self.layers(number):
                outs = [
                    self.through(layer, x[p], come[p], everyone, seen, keep=True)[0] for p, seen in parts if come[p]
                ]
                x = np.concatenate(outs)
            self.hidden |= dict(zip(come, x, strict=True))
        self.end, self.kept, self.paid = N, {}, {}
        return self.llama.logits(x[-1])

    def say(self, token: int) -> np.ndarray:
        """Take in a token of the answer; its logits."""
        settings, new, deepest = self.settings, len(self.depth), len(self.settings.cuts) + 1
        if new == self.end:
            every = [(layer, p) for layer in range(settings.cuts[0][0], self.llama.shape.layers) for p in self.depth]
            self.kept = {key: pair for key in every if (pair := self.fill(*key)) is not None}
        safe = {*range(settings.sink), *range(max(self.end - settings.recent, 0), new + 1)}
        open_to = {p: self.paid.get(p, 0.0) for p in range(new) if p not in safe}
        wanted = {p: max(open_to.get(q, 0.0) for q in range(p - 15, p + 1)) for p in range(new)}
        self.paid = {p: paid / 2 for p, paid in self.paid.items()}
        x, rests = self.llama.embed([token]), (new - self.end + 1) % settings.revive_every > 0
        for layer in self.layers(0):
            x, _, _ = self.through(layer, x, [new], range(new), False, keep=True)
        self.depth[new] = deepest
        for number in range(1, deepest):
            waiting = sorted(
                (p for p, depth in self.depth.items() if depth == number), key=lambda p: (p not in safe, -wanted[p], p)
            )
            come = [] if rests else waiting[: settings.revive]
            self.depth |= dict.fromkeys(come, number + 1)
            x = np.array([x[0], *(self.hidden[p] for p in come)])
            for layer in self.layers(number):
                x, paid, seen = self.through(layer, x, [new, *come], range(new), True, keep=True)
                for p, most in zip(seen, paid[:, 0].max(axis=0), strict=True):
                    self.paid[p] = self.paid.get(p, 0.0) + most
            self.hidden |= dict(zip(come, x[1:], strict=True))
        return self.llama.logits(x[0])


def random_maps(seed: int, layers: int = 6) -> Maps:
    """That know nothing of the model, which has states of 32 values, and two heads of 8 that share keys."""
    rng = np.random.default_rng(seed)

    def layer() -> LayerMap:
        return LayerMap((Factor(mx.array(rng.normal(0, 0.5, (32, 32)), mx.float16)),), mx.array(rng.normal(size=32)))

    scale = mx.array(2.0 ** rng.integers(-2, 3, 32))
    at = range(1, layers - 1)
    return Maps("", {n: CutMap(n, (2,) * (layers - n), tuple(layer() for _ in range(layers - n)), scale) for n in at})
