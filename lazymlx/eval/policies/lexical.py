"""A lexical policy in the manner of PFlash."""

from collections import Counter

import numpy as np

from ...schedule import Cut
from .subset import SubsetPolicy, closed_up

# Of 32,768 tokens PFlash keeps 256 at the start and 2,048 at the end, and scores blocks of 128 against the last 512:
# the same for prompts of one to eight thousand tokens, an eighth of it.
BLOCK, SINK, TAIL, QUERY = 32, 32, 128, 64
OVERLAP, RECENCY, ANCHOR = 4.0, 0.05, 0.25
STRIDE = 8  # every eighth block is an anchor


class Lexical(SubsetPolicy):
    """No model at all: blocks are kept that share rare tokens with the prompt's end, or hold rare ones.

    Beginning and end are always kept, 160 tokens together: of a short prompt with a small share that is all. Tokens are
    read closed up, as the source does it.
    """

    name = "lexical"
    source = "PFlash of Rapid-MLX (github.com/raullenchai/Rapid-MLX, vllm_mlx/pflash.py)"

    def choose(self, model, tokens):
        N = len(tokens)
        budget = Cut(0, self.keep).count(N)
        sink = min(SINK, N)
        tail = max(sink, N - TAIL)
        kept = [*range(sink), *range(tail, N)]
        for start, stop in _ranked(tokens, sink, tail):
            room = budget - len(kept)
            if room <= 0:
                break
            kept.extend(range(start, min(stop, start + room)))
        return closed_up(np.array(sorted(kept)))


def _ranked(tokens: list[int], start: int, stop: int) -> list[tuple[int, int]]:
    """Blocks between `start` and `stop`, the best first."""
    counts, asked = Counter(tokens), Counter(tokens[-QUERY:])

    def score(number: int, first: int, last: int) -> float:
        block = tokens[first:last]
        overlap = sum(asked[token] / counts[token] for token in block)
        rarity = sum(1 / counts[token] for token in block) / len(block)
        recency = (last - start) / (stop - start)
        return OVERLAP * overlap + rarity + RECENCY * recency + ANCHOR * (number % STRIDE == 0)

    blocks = [(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]
    scores = {block: score(number, *block) for number, block in enumerate(blocks)}
    return sorted(blocks, key=lambda block: -scores[block])
