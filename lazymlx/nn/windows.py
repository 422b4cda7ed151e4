"""Layers with a sliding window, and what they mean for cuts.

A token outside of a layer's window is invisible there, whether it was left behind or not; inside of it, what is visible
is what was computed (or selected), as in any other layer. Masks compare positions, so a window is as wide in the
conversation however many tokens were left out of it.

At a cut, tokens are scored by the last layer before it that sees the whole context: one with a window says nothing on
far tokens, and would leave them all behind. So a stage whose tokens are to be scored must have such a layer. A model
that has none at all can be cut anywhere, but only while its window holds the whole context; longer prompts are computed
in full.
"""

from collections.abc import Sequence

from ..config import LazyConfig
from ..errors import ConfigError
from ..schedule import Cut, Schedule

Windows = Sequence[int | None]  # of each layer; None sees everything


def scoring_layer(windows: Windows, start: int, stop: int) -> int:
    """Of the layers `[start, stop)` the one whose attention scores tokens; the last one if all have a window."""
    return next((layer for layer in reversed(range(start, stop)) if windows[layer] is None), stop - 1)


def sight(windows: Windows) -> int | None:
    """The longest context that some layer sees; None if there is no limit."""
    return None if None in windows else max(window for window in windows if window is not None)


def looked_through(windows: Windows, cut: int) -> range:
    """The layers that a look at a cut runs through: up to the middle one of those behind it that see everything. The
    others change little of what is chosen (log of 2026-11-30, "through half of the layers")."""
    layers = range(cut, len(windows))
    seeing = [layer for layer in layers if windows[layer] is None] or layers
    return range(cut, seeing[(len(seeing) - 1) // 2] + 1)


def resolved(lazy: LazyConfig, windows: Windows) -> LazyConfig:
    """A configuration with cuts for a model with these windows.

    The layers of a preset are shares of the depth, hence moved on to where they are possible.

    Raises:
        ConfigError: a cut was given where no layer can score.
    """
    config = lazy.resolve(len(windows))
    cuts = config.cuts if None not in windows else possible(config.cuts, windows)
    if cuts == config.cuts:
        return config
    if isinstance(lazy.schedule, str):
        return LazyConfig(**{**vars(config), "schedule": Schedule(cuts)})
    impossible = next(cut for cut in config.cuts if cut not in cuts)
    behind = [layer + 1 for layer, window in enumerate(windows[:-1]) if window is None]
    raise ConfigError(
        f"schedule: every layer between layer {impossible.layer} and the cut before it sees a window of tokens only, "
        "so none can score the whole context; this model can be cut behind each of the layers that see everything, at "
        f"{', '.join(map(str, behind))}"
    )


def possible(cuts: tuple[Cut, ...], windows: Windows) -> tuple[Cut, ...]:
    """The cuts, each moved behind the next layer that sees everything if the stage before it has none."""
    moved: list[Cut] = []
    for cut in cuts:
        start = moved[-1].layer if moved else 0
        seeing = [layer for layer in range(start, len(windows) - 1) if windows[layer] is None]
        layer = max([cut.layer, *(layer + 1 for layer in seeing[:1])]) if seeing else len(windows)
        if start < layer < len(windows):
            moved.append(Cut(layer, cut.keep))
    return tuple(moved)
