"""LazyLLM as published."""

from ...config import LazyConfig
from .engine import ScheduledPolicy


class LazyLLM(ScheduledPolicy):
    """The last token's attention, nothing protected, everything selected is revived."""

    name = "lazyllm"
    source = "Fu et al. 2024, LazyLLM (arXiv 2407.14057)"

    @staticmethod
    def configure(options, schedule):
        return LazyConfig.paper(schedule)
