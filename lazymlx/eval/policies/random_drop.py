"""Random token dropping."""

from dataclasses import replace

import mlx.core as mx

from ...engine.selection import Scorer
from .engine import ScheduledPolicy


class RandomScorer(Scorer):
    """Importance by lot: a draw for each number of tokens, so that a prompt asked again has the same one."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, queries, keys, visible):
        count = keys.shape[1]
        return mx.random.uniform(shape=(count,), key=mx.random.key(self.seed + (count << 32)))


class RandomDrop(ScheduledPolicy):
    """The same cuts, the same protected tokens, and for the rest a lottery; what is dropped stays dropped."""

    name = "random"
    source = "Yao et al. 2022, random-LTD (arXiv 2211.11586), LazyLLM's baseline"

    @staticmethod
    def configure(options, schedule):
        scorer = RandomScorer(options.seed)
        return replace(options.lazy, schedule=schedule, scorer=scorer, pool=1, lookahead=0, revive=0, min_tokens=0)
