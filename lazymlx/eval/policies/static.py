"""Static pruning."""

from dataclasses import replace

from .engine import ScheduledPolicy


class Static(ScheduledPolicy):
    """lazymlx without revival: tokens are chosen once, when the prompt is read, and for good.

    LazyLLM's baseline prunes once, by the attention of the first few layers; with the same cuts as the others the
    difference is revival alone.
    """

    name = "static"
    source = "LazyLLM's baseline (arXiv 2407.14057, sec 5)"

    @staticmethod
    def configure(options, schedule):
        return replace(options.lazy, schedule=schedule, revive=0, min_tokens=0)
