"""`Trace`: how deep each token was computed, after every step of an answer.

It is called with every step, and holds on to the table of depths that the aux cache keeps anyway. A table is looked at
two steps later, when the device is done with it, so that recording never makes a step wait.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..cache.conversation import LazyCache
from ..errors import StateError

LAG = 2  # steps that the device may still be busy with


class Change(NamedTuple):
    """What one token of the answer changed, itself included: it is new."""

    positions: np.ndarray
    depths: np.ndarray  # the number of stages that they are computed in from now on


@dataclass(frozen=True)
class History:
    """What happened while an answer was generated.

    Attributes:
        tokens: the whole context, by position.
        edges: the first layer of each stage, and the number of layers.
        turn_start, prompt_end: where the newest prompt, with what was read for it, begins and ends.
        before: for each position, in how many stages it was computed before the prompt came.
        asked: the same after the prompt.
        changes: for each token of the answer that was taken in, what it changed.
        first: the answer's first token; of an answer that ends with it, it is not in `tokens`.
    """

    tokens: tuple[int, ...]
    edges: tuple[int, ...]
    turn_start: int
    prompt_end: int
    before: np.ndarray
    asked: np.ndarray
    changes: tuple[Change, ...]
    first: int

    @property
    def stages(self) -> int:
        return len(self.edges) - 1

    @property
    def answer(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.tokens[self.prompt_end :] or (self.first,)

    def depths(self) -> list[np.ndarray]:
        """The depth of every position after the prompt, and after each token of the answer; 0 for those to come."""
        depth = np.pad(self.asked, (0, len(self.tokens) - len(self.asked)))
        states = [depth]
        for change in self.changes:
            depth = depth.copy()
            depth[change.positions] = change.depths
            states.append(depth)
        return states

    def returned(self) -> np.ndarray:
        """Depth gained by the prompt, for each token that an earlier one had left behind; 0 for all others."""
        gained = self.asked[: self.turn_start] - self.before[: self.turn_start]
        return np.pad(gained, (0, len(self.asked) - self.turn_start))

    def revived(self) -> list[int]:
        """How often a token came back to a stage, for the prompt and then for each token of the answer."""
        states = self.depths()
        steps = ((after - before)[: self.prompt_end] for before, after in zip(states, states[1:], strict=False))
        return [int(self.returned().sum()), *(int(gained.sum()) for gained in steps)]


class _State(NamedTuple):
    """The cache after a step, and what the step took in."""

    depth: mx.array | None  # None where there is but one stage
    offset: int
    tokens: Sequence[int] | mx.array

    def on_host(self) -> np.ndarray:
        if self.depth is None:
            return np.ones(self.offset, np.int16)
        return np.array(self.depth)[: self.offset].astype(np.int16)


class Trace:
    """Records one answer: give `note` as `on_step` to `stream_generate`, `generate` or `Session.ask`.

    Of several answers it holds the newest. It is read by the thread that generated.

    Args:
        earlier: tokens that are in the cache before the prompt; of a session, `session.tokens`.
    """

    def __init__(self, earlier: Sequence[int] = ()):
        self._tokens = list(earlier)
        self._waiting: list[_State] = []
        self._states: list[np.ndarray] = []  # before the prompt, and after it
        self._changes: list[Change] = []
        self._first: mx.array | None = None
        self._edges, self._turn_start, self._prompt_end = (0, 0), 0, 0
        self._now = np.zeros(0, np.int16)

    @property
    def answered(self) -> bool:
        """Whether there is an answer, if only its first token."""
        return self._first is not None

    def note(self, cache: LazyCache, tokens: Sequence[int] | mx.array, chosen: mx.array | None) -> None:
        """Take down the state of a cache that took in `tokens`, upon which `chosen` was chosen. See `OnStep`."""
        if chosen is None:
            self._begin(cache)
        elif self._first is None:
            self._first = chosen
            self._edges, self._turn_start, self._prompt_end = tuple(cache.edges), cache.turn.start, cache.offset
        depth = copy.copy(cache.aux.depth) if cache.config.cuts else None  # a handle that later steps do not write to
        self._waiting.append(_State(depth, cache.offset, tokens))
        if depth is not None:
            mx.async_eval(depth)
        self._look(LAG)

    def history(self) -> History:
        """What was recorded so far (waits for the device).

        Raises:
            StateError: there is no answer yet.
        """
        if self._first is None:
            raise StateError("trace: nothing was answered; pass its note as on_step, and let the first token come")
        self._look(0)
        before, asked = self._states
        return History(
            tuple(self._tokens),
            self._edges,
            self._turn_start,
            self._prompt_end,
            before,
            asked,
            tuple(self._changes),
            int(np.array(self._first)[0]),
        )

    def _begin(self, cache: LazyCache) -> None:
        if len(self._tokens) < cache.offset:
            raise StateError(
                f"trace: the cache holds {cache.offset} tokens, of which {len(self._tokens)} are known; "
                "make a new one with Trace(session.tokens) before each question"
            )
        del self._tokens[cache.offset :]
        self._waiting, self._states, self._changes, self._first = [], [], [], None

    def _look(self, lag: int) -> None:
        """Look at all tables but the newest `lag`."""
        while len(self._waiting) > lag:
            state = self._waiting.pop(0)
            depth = state.on_host()
            if len(self._states) < 2:
                self._states.append(depth)
            else:
                changed = np.flatnonzero(depth != np.pad(self._now, (0, len(depth) - len(self._now))))
                self._changes.append(Change(changed, depth[changed]))
            self._tokens += np.array(state.tokens, np.int64).tolist()
            self._now = depth
