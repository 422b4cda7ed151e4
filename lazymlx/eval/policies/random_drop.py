"""Random token dropping."""

from dataclasses import replace

import mlx.core as mx

from ...engine.selection import Scorer
from .engine import ScheduledPolicy


class RandomScorer(Scorer):
    """Importance by lot. It is a sequence of draws: equal seeds give equal runs, not equal prompts."""

    def __init__(self, seed: int):
        self.key = mx.random.key(seed)

    def __call__(self, queries, keys, visible):
        self.key, key = mx.random.split(self.key)
        return mx.random.uniform(shape=(keys.shape[1],), key=key)


class RandomDrop(ScheduledPolicy):
    """The same cuts, the same protected tokens, and for the rest a lottery; what is dropped stays dropped."""

    name = "random"
    source = "Yao et al. 2022, random-LTD (arXiv 2211.11586), LazyLLM's baseline"

    @staticmethod
    def configure(options, schedule):
        scorer = RandomScorer(options.seed)
        return replace(options.lazy, schedule=schedule, scorer=scorer, pool=1, revive=0, min_tokens=0)
