"""LazyLLM in plain NumPy: the slow, readable oracle that the engine is tested against.

Written from the paper (Fu et al., "LazyLLM: Dynamic Token Pruning for Efficient Long Context LLM
Inference", 2024) and from the definition of one step; it knows nothing of the engine.

    eq. 1     importance of token i = mean over heads of the attention that the last token pays to it,
              taken from the layer before the cut                              -> `importance`
    sec. 3.2  top-k tokens stay, the others are left out of all later layers   -> `select`
    sec. 3.2  a token that was left out keeps its hidden state and may be computed at any later step,
              so each token is computed at most once in each layer             -> `choose`, `compute`

Everything is a *set of positions*; arithmetic is float64; a row is looked up by its position, so
there are no slots and no buffers. The paper's aux cache needs no code of its own: it is what
`hidden[cut]` holds and `keys[cut]` does not.

Axes: L rows, S keys, H heads, H_kv key-value heads, D_h head size, D hidden size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Integer

Positions = frozenset[int]
REDUCE = {"mean": np.mean, "max": np.max}
# what a `LazyConfig` and the oracle's arguments have in common
SETTINGS = "window pool reduce links sink recent attend revive revive_every min_tokens round_to".split()


@dataclass(frozen=True)
class Shape:
    """What the weights alone do not tell about a Llama."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5
    windows: tuple[int | None, ...] = ()  # tokens that each layer sees, itself included; None or (): all before it


@dataclass(frozen=True)
class Step:
    """What one step answered and which tokens it touched; stages count from 0, cuts from 0."""

    logits: Float[np.ndarray, " vocab"]
    active: tuple[Positions, ...]  # A_0 .. A_J
    computed_now: tuple[Positions, ...]  # per stage
    revived: tuple[Positions, ...]  # per cut: computed now, older than this step
    importance: tuple[Float[np.ndarray, " N"], ...]  # per cut: smoothed, nan outside A_{j-1}


# --- Llama ----------------------------------------------------------------------------------------


def rotate(
    x: Float[np.ndarray, "L H D_h"], positions: Integer[np.ndarray, " L"], theta: float
) -> Float[np.ndarray, "L H D_h"]:
    """RoPE on split halves: the pair (x[i], x[i + D_h/2]) turns by position * theta^(-2i/D_h)."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] * theta ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention_probabilities(
    q: Float[np.ndarray, "L H D_h"],
    k: Float[np.ndarray, "S H_kv D_h"],
    mask: Bool[np.ndarray, "L S"],
) -> Float[np.ndarray, "H L S"]:
    """Softmax of q . k / sqrt(D_h) over the keys that the mask allows; 0 for the others."""
    k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    scores = np.einsum("lhd,shd->hls", q, k) * q.shape[-1] ** -0.5
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


class Llama:
    """The arithmetic of one Llama layer and of the head; holds weights, no state.

    Biases (Qwen2) and norms of queries and keys (Qwen3) are used if there are weights for them.
    """

    def __init__(self, weights: dict[str, np.ndarray], shape: Shape):
        self.weights = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}
        self.shape = shape

    def embed(self, tokens: Sequence[int]) -> Float[np.ndarray, "L D"]:
        return self.weights["model.embed_tokens.weight"][np.asarray(tokens)]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        mean_square = np.mean(x**2, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.shape.rms_eps) * self.weights[f"{name}.weight"]

    def qkv(
        self, layer: int, x: Float[np.ndarray, "L D"], positions: Iterable[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries, keys (both rotated to their positions) and values of the layer's input rows."""
        at, prefix, shape = np.array(list(positions)), f"model.layers.{layer}", self.shape
        x = self.norm(f"{prefix}.input_layernorm", x)
        q, k, v = (self.linear(f"{prefix}.self_attn.{name}_proj", x) for name in "qkv")
        q = q.reshape(len(x), shape.heads, shape.head_dim)
        k = k.reshape(len(x), shape.kv_heads, shape.head_dim)
        v = v.reshape(len(x), shape.kv_heads, shape.head_dim)
        if f"{prefix}.self_attn.q_norm.weight" in self.weights:
            q, k = self.norm(f"{prefix}.self_attn.q_norm", q), self.norm(f"{prefix}.self_attn.k_norm", k)
        return rotate(q, at, shape.rope_theta), rotate(k, at, shape.rope_theta), v

    def layer(
        self, layer: int, x: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray
    ) -> Float[np.ndarray, "L D"]:
        """Attention over the given keys and values, then the MLP, each added to its input."""
        prefix = f"model.layers.{layer}"
        v = np.repeat(v, q.shape[1] // v.shape[1], axis=1)
        mixed = np.einsum("hls,shd->lhd", attention_probabilities(q, k, mask), v)
        x = x + self.linear(f"{prefix}.self_attn.o_proj", mixed.reshape(len(x), -1))
        y = self.norm(f"{prefix}.post_attention_layernorm", x)
        gate = self.linear(f"{prefix}.mlp.gate_proj", y)
        up = self.linear(f"{prefix}.mlp.up_proj", y)
        return x + self.linear(f"{prefix}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)

    def sees(self, layer: int, at: Sequence[int], keys: Sequence[int]) -> Bool[np.ndarray, "L S"]:
        """Which keys the rows at these positions see: none that are later, and none outside of the layer's window."""
        distance = np.array(at)[:, None] - np.array(keys)
        window = self.window(layer)
        return (distance >= 0) & (True if window is None else distance < window)

    def window(self, layer: int) -> int | None:
        return self.shape.windows[layer] if self.shape.windows else None

    def logits(self, x: Float[np.ndarray, "*L D"]) -> Float[np.ndarray, "*L vocab"]:
        tied = "lm_head.weight" not in self.weights
        return self.linear("model.embed_tokens" if tied else "lm_head", self.norm("model.norm", x))


def dense_logits(weights: dict[str, np.ndarray], shape: Shape, tokens: Sequence[int]) -> Float[np.ndarray, "L vocab"]:
    """Plain causal Llama: every token in every layer."""
    llama = Llama(weights, shape)
    x, at = llama.embed(tokens), range(len(tokens))
    for layer in range(shape.layers):
        q, k, v = llama.qkv(layer, x, at)
        x = llama.layer(layer, x, q, k, v, llama.sees(layer, at, at))
    return llama.logits(x)


# --- LazyLLM --------------------------------------------------------------------------------------


def kept_count(keep: float, context: int) -> int:
    """ceil(keep * context) of the decimal number that was written: 0.07 * 100 is 7, not 8."""
    return math.ceil(Fraction(str(keep)) * context)


def best(positions: Iterable[int], importance: Float[np.ndarray, " N"], count: int) -> Positions:
    """The `count` most important positions; of equals, the earlier ones."""
    return frozenset(sorted(positions, key=lambda p: (-importance[p], p))[:count])


class ReferenceLazyLLM:
    """One conversation. Every `step` adds tokens and answers with the logits of the last one.

    State, all of it: `hidden[layer][position]`, the input of each layer (`hidden[layers]` is the
    output of the last), `keys[layer][position]` and `values[layer][position]`. What is in these
    dicts is what was computed; nothing in them is ever changed.
    """

    def __init__(
        self,
        weights: dict[str, np.ndarray],
        shape: Shape,
        cuts: Sequence[tuple[int, float]] = (),
        *,
        window: int = 1,
        pool: int = 1,
        reduce: str = "mean",
        links: int = 0,
        sink: int = 0,
        recent: int = 0,
        attend: str = "selected",
        revive: int | None = None,
        revive_every: int = 1,
        min_tokens: int = 0,
        round_to: int = 1,
    ):
        assert reduce in REDUCE and attend in ("selected", "computed") and pool % 2 == 1
        self.llama, self.cuts = Llama(weights, shape), tuple(cuts)
        self.window, self.pool, self.reduce, self.links = window, pool, reduce, links
        self.sink, self.recent = sink, recent
        self.attend, self.revive, self.revive_every = attend, revive, revive_every
        self.min_tokens, self.round_to = min_tokens, round_to

        borders = [0, *(layer for layer, _ in self.cuts), shape.layers]
        assert borders == sorted(set(borders)), f"cuts must rise inside the model, got {self.cuts}"
        self.stages = [range(a, b) for a, b in pairwise(borders)]

        self.hidden: list[dict[int, np.ndarray]] = [{} for _ in range(shape.layers + 1)]
        self.keys: list[dict[int, np.ndarray]] = [{} for _ in range(shape.layers)]
        self.values: list[dict[int, np.ndarray]] = [{} for _ in range(shape.layers)]
        self.length = 0  # N, the context
        self.prompt_end = 0
        self.generated: Positions = frozenset()

    def step(self, tokens: Sequence[int], *, decode: bool = False) -> Step:
        """Add a prompt (first or follow-up), or with `decode` one generated token."""
        assert len(tokens) == 1 if decode else len(tokens) >= 1
        new = frozenset(range(self.length, self.length + len(tokens)))
        self.begin(tokens, new, decode)

        active, computed_now, scores = [frozenset(range(self.length))], [new], []
        self.compute(0, new, visible=active[0])
        for j, (_, keep) in enumerate(self.cuts, start=1):
            before = active[-1]
            if decode and self.rests():
                self.compute(j, new, self.computed(j) | new)
                active.append(self.computed(j))
                computed_now.append(new)
                scores.append(np.full(self.length, np.nan))
                continue
            seen = before if self.attend == "selected" else self.computed(j - 1)
            importance = self.importance(j, self.query_window(new), seen, before)
            if self.links and j == 1 and not decode:
                importance = self.with_links(importance, before, before - self.protected(new))
            budget = decode and self.revive is not None
            waiting = self.computed(j - 1) - self.computed(j) - new if budget else frozenset()
            importance = self.smoothed(importance, before, before | waiting)
            selected = self.select(before, importance, keep, new, decode)
            if budget:
                now = new | self.back(waiting, importance, new)
                selected = selected | (now & before) if self.attend == "selected" else self.computed(j) | now
            else:
                now = self.choose(selected - self.computed(j), new)
            after = selected & (self.computed(j) | now)
            self.compute(j, now, after if self.attend == "selected" else self.computed(j) | now)
            active.append(after)
            computed_now.append(now)
            scores.append(importance)

        return Step(
            logits=self.llama.logits(self.hidden[-1][self.length - 1]),
            active=tuple(active),
            computed_now=tuple(computed_now),
            revived=tuple(now - new for now in computed_now[1:]),
            importance=tuple(scores),
        )

    def begin(self, tokens: Sequence[int], new: Positions, decode: bool) -> None:
        """Give the new tokens their positions and their first hidden states."""
        self.hidden[0].update(zip(sorted(new), self.llama.embed(tokens), strict=True))
        self.length += len(tokens)
        if decode:
            self.generated |= new
        else:
            self.prompt_end = self.length

    def rests(self) -> bool:
        """Not in the paper: with a budget, tokens come back at every `revive_every`-th token of an answer alone."""
        budget = self.revive is not None and self.attend == "computed"
        return budget and (self.length - 1 - self.prompt_end) % self.revive_every > 0

    def computed(self, stage: int) -> Positions:
        """C_j: the positions whose keys and values exist in this stage's layers."""
        return frozenset(self.keys[self.stages[stage][0]])

    def query_window(self, new: Positions) -> list[int]:
        """W: the last tokens of this step, whose attention is asked."""
        return sorted(new)[-self.window :]

    def protected(self, new: Positions) -> Positions:
        """P: positions that no cut of this step may leave behind."""
        sink = range(self.sink)
        recent = range(self.prompt_end - self.recent, self.prompt_end)
        return self.generated.union(sink, recent, self.query_window(new), [self.length - 1])

    def importance(self, j: int, queries: Sequence[int], seen: Positions, scored: Positions) -> Float[np.ndarray, " N"]:
        """Eq. 1 in the layer before cut j: attention from `queries`, a softmax over all of `seen`.

        The paper has one query (the last token) and the mean over heads. Returned for the positions in `scored`, nan
        elsewhere. A layer with a window says nothing on far tokens, so the last one without is asked.
        """
        layer, keys = self.asked(j), sorted(seen)
        x = np.stack([self.hidden[layer][p] for p in queries])
        q, _, _ = self.llama.qkv(layer, x, queries)
        k = np.stack([self.keys[layer][p] for p in keys])
        per_head = attention_probabilities(q, k, self.llama.sees(layer, queries, keys)).mean(axis=1)  # (H, S)
        raw = dict(zip(keys, REDUCE[self.reduce](per_head, axis=0), strict=True))
        return np.array([raw[i] if i in scored else np.nan for i in range(self.length)])

    def smoothed(
        self, importance: Float[np.ndarray, " N"], among: Positions, wanted: Positions | None = None
    ) -> Float[np.ndarray, " N"]:
        """The mean over a position's neighbours, of those that are in `among`, 0 without any; nan where not wanted."""
        inside, near = np.isin(np.arange(self.length), list(among)), slice(self.pool // 2, self.pool // 2 + self.length)
        total, count = (np.convolve(x, np.ones(self.pool))[near] for x in (np.where(inside, importance, 0.0), inside))
        found, wanted = np.full(self.length, np.nan), list(among if wanted is None else wanted)
        found[wanted] = (total / np.maximum(count, 1))[wanted]
        return found

    def with_links(
        self, importance: Float[np.ndarray, " N"], seen: Positions, candidates: Positions
    ) -> Float[np.ndarray, " N"]:
        """Not in the paper: what the most important candidates attend to counts as much as they do.

        The `links` candidates with the most important surroundings (smoothed twice) are asked in the layer before the
        first cut, with their importance as their weight; of their attention counts what goes to candidates that are
        not their neighbours.
        """
        wide = self.smoothed(self.smoothed(importance, candidates), candidates)
        layer, keys, total = self.asked(1), sorted(seen), np.zeros(self.length)
        k = np.stack([self.keys[layer][p] for p in keys])
        for i in self.asked_in_turn(candidates, wide):
            q, _, _ = self.llama.qkv(layer, self.hidden[layer][i][None], [i])
            paid = attention_probabilities(q, k, self.llama.sees(layer, [i], keys)).mean(axis=0)[0]
            for p, weight in zip(keys, paid, strict=True):
                if p in candidates and abs(p - i) > self.pool // 2:
                    total[p] += wide[i] * weight
        if total.sum() > 0:
            total *= sum(importance[p] for p in candidates) / total.sum()
        return importance + total

    def asked_in_turn(self, candidates: Positions, wide: Float[np.ndarray, " N"]) -> Positions:
        return best(candidates, wide, self.links)

    def asked(self, j: int) -> int:
        """The layer whose attention scores the tokens at cut j."""
        return max(layer for layer in self.stages[j - 1] if self.llama.window(layer) is None)

    def select(
        self,
        before: Positions,
        importance: Float[np.ndarray, " N"],
        keep: float,
        new: Positions,
        decode: bool,
    ) -> Positions:
        """T: the k best candidates, and on top of them the protected tokens (sec. 3.2)."""
        protected = self.protected(new) & before
        candidates = before - protected
        count = kept_count(keep, self.length)
        if not decode:
            while (count + len(protected)) % self.round_to:
                count += 1
        if self.length < self.min_tokens:
            count = len(candidates)
        return best(candidates, importance, count) | protected

    def choose(self, missing: Positions, new: Positions) -> Positions:
        """Of the selected tokens that were not computed behind the cut: those computed now."""
        return missing & new if self.revive == 0 else missing

    def back(self, waiting: Positions, importance: Float[np.ndarray, " N"], new: Positions) -> Positions:
        """Not in the paper: with a budget, the best of those that wait at a cut come back, protected ones first."""
        assert self.revive is not None
        safe = frozenset(sorted(waiting & self.protected(new))[: self.revive])
        return safe | best(waiting - self.protected(new), importance, self.revive - len(safe))

    def compute(self, stage: int, rows: Positions, visible: Positions) -> None:
        """Run rows through a stage; each sees the visible positions up to its own, itself included."""
        at, keys = sorted(rows), sorted(visible)
        for layer in self.stages[stage]:
            for p in at:
                assert p not in self.keys[layer], f"position {p} computed twice in layer {layer}"
            x = np.stack([self.hidden[layer][p] for p in at])
            q, k, v = self.llama.qkv(layer, x, at)
            self.keys[layer].update(zip(at, k, strict=True))
            self.values[layer].update(zip(at, v, strict=True))
            k = np.stack([self.keys[layer][p] for p in keys])
            v = np.stack([self.values[layer][p] for p in keys])
            out = self.llama.layer(layer, x, q, k, v, self.llama.sees(layer, at, keys))
            self.hidden[layer + 1].update(zip(at, out, strict=True))
