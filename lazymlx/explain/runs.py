"""`TokenRun`: neighbouring tokens with the same story, so that a page of many thousand tokens has few parts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from .pieces import TextPiece
from .recording import History

BLOCK = 1500  # characters, about, that are laid out together
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


class Story(NamedTuple):
    """How deep a token was computed by the prompt, and what the answer added: (its token's number, depth).

    Number 0 is the prompt itself, of a token that an earlier prompt had left behind.
    """

    depth: int
    events: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TokenRun:
    """Text whose tokens have the same story."""

    start: int  # position of its first token
    text: str
    special: bool  # tokens that are the chat template's, not text
    story: Story

    @property
    def depth(self) -> int:
        """In the end."""
        return self.story.events[-1][1] if self.story.events else self.story.depth

    @property
    def code(self) -> str:
        """The story for the page's script: the first depth, and then number:depth."""
        return " ".join([str(self.story.depth), *(f"{number}:{depth}" for number, depth in self.story.events)])


def blocks(history: History, pieces: Iterable[TextPiece], special: set[int]) -> list[list[TokenRun]]:
    """The prompt's runs, in blocks that end with a line."""
    stories, parts, length = Stories(history), [[]], 0
    for piece in pieces:
        parts[-1].append(piece)
        length += len(piece.text)
        if length > BLOCK and piece.text.endswith("\n"):
            parts.append([])
            length = 0
    return [list(_runs(history, part, stories, special)) for part in parts if part]


def _runs(history: History, pieces: Iterable[TextPiece], stories: "Stories", special: set[int]) -> Iterator[TokenRun]:
    def kind(piece: TextPiece) -> tuple[bool, Story]:
        return history.tokens[piece.start] in special, stories.of(piece)

    for (is_special, story), group in groupby(pieces, kind):
        run = list(group)
        yield TokenRun(run[0].start, visible("".join(piece.text for piece in run)), is_special, story)


class Stories:
    """The stories of all the prompt's tokens."""

    def __init__(self, history: History):
        self.asked, returned = history.asked, history.returned()
        self.first = self.asked - returned
        self.events: dict[int, list[tuple[int, int]]] = {
            int(place): [(0, int(self.asked[place]))] for place in np.flatnonzero(returned)
        }
        for number, change in enumerate(history.changes, 1):
            for place, depth in zip(change.positions.tolist(), change.depths.tolist(), strict=True):
                self.events.setdefault(place, []).append((number, depth))

    def of(self, piece: TextPiece) -> Story:
        """Of a piece of several tokens, that of the deepest at any time."""
        places = range(piece.start, piece.stop)
        depth, story = max(int(self.first[place]) for place in places), []
        first = depth
        for number, deeper in sorted(event for place in places for event in self.events.get(place, ())):
            if deeper > depth:
                story.append((number, deeper))
                depth = deeper
        return Story(first, tuple(story))


def visible(text: str) -> str:
    """Control characters as pictures: a page could not hold them all, nor would they be seen."""
    return text.translate(PICTURES)
