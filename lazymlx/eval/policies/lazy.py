"""lazymlx as it is used."""

from dataclasses import replace

from .engine import ScheduledPolicy


class Lazy(ScheduledPolicy):
    """lazymlx's default: window, smoothing, protected tokens, revival within a budget."""

    name = "lazy"
    source = "lazymlx"

    @staticmethod
    def configure(options, schedule):
        return replace(options.lazy, schedule=schedule)
