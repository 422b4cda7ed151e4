"""Policies that are the engine with another configuration."""

from abc import abstractmethod
from collections.abc import Collection

from ...config import STEP_SIZE, LazyConfig
from ...costs.flops import Looking, Sizes, looking_flops, rows_by_layer
from ...engine.model import Model
from ...prefill import Limits, prefill
from ...schedule import Schedule
from .base import Options, Policy, PolicyConversation, prefill_share


class EngineConversation(PolicyConversation):
    """A lazy cache and its model."""

    def __init__(self, model: Model, lazy: LazyConfig, stop: Collection[int]):
        super().__init__(stop)
        self.model = model
        self.cache = model.make_cache(lazy)
        self._prefill_fraction: float | None = None

    def read(self, tokens, tail):
        logits = prefill(self.model, tokens, self.cache, tail=tail, limits=Limits(STEP_SIZE))
        assert logits is not None  # the prompt is complete
        return logits

    def step(self, token):
        if self._prefill_fraction is None:
            self._prefill_fraction = self._of_first_prompt()
        logits = self.model(token[None], cache=self.cache)
        assert logits is not None
        return logits[:, -1]

    def _of_first_prompt(self) -> float:
        model, cache = self.model, self.cache[0]
        rows = rows_by_layer(len(model.layers), cache.config.cuts, [cache.offset, *cache.turn.kept])
        looked, looking, sizes = 0.0, Looking.of(cache.config, model.engine.maps), Sizes.of_model(model)
        if sizes is not None and looking is not None:
            looked = looking_flops(sizes, cache.config.cuts, cache.offset, cache.turn.kept, looking)
        return prefill_share(model, [int(count) for count in rows], cache.offset, looked)

    def prefill_fraction(self):
        return self._of_first_prompt() if self._prefill_fraction is None else self._prefill_fraction

    def computed_fraction(self):
        return self.cache[0].stats().computed_fraction


class EnginePolicy(Policy):
    """A configuration, at each schedule or keep that was asked for."""

    def __init__(self, lazy: LazyConfig, point: str | None = None):
        super().__init__(str(lazy.schedule) if point is None else point)
        self.lazy = lazy

    def begin(self, model, stop):
        return EngineConversation(model, self.lazy, stop)


class ScheduledPolicy(EnginePolicy):
    """A configuration at each schedule that was asked for: implement `configure`."""

    @classmethod
    def points(cls, options):
        return [cls(cls.configure(options, schedule)) for schedule in options.schedules]

    @staticmethod
    @abstractmethod
    def configure(options: Options, schedule: Schedule) -> LazyConfig:
        """The configuration with this schedule."""
