"""`ToolCalls`: what a model wants called, found in the text of its answer. mlx-lm's parser of the model reads it."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from .answer import Call
from .request import Body
from .stops import beginning

CallParser = Callable[[str, Any], Any]


class ToolCalls:
    """Passes an answer on, but for the calls in it. What turns out to be no call is passed on as text.

    Args:
        start, end: what the model puts around a call; without an `end` it goes on to the answer's.
        parse: mlx-lm's, from the text between the two to a call or several.
    """

    def __init__(self, start: str, end: str, parse: CallParser, tools: Sequence[Body]):
        self._start, self._end, self._parse, self._tools = start, end, parse, list(tools)
        self._held, self._inside = "", False

    def add(self, text: str, last: bool = False) -> tuple[str, list[Call]]:
        """What can be said now, and the calls that are complete; of the last piece nothing is held back."""
        self._held += text
        said, calls = "", list[Call]()
        while mark := self._mark():
            before, found, after = self._held.partition(mark)
            if not found:
                break
            self._held = after
            if self._inside:
                raw, new = self._calls(before, found)
                said, calls = said + raw, calls + new
            else:
                said += before
            self._inside = not self._inside
        if self._inside and last:
            raw, new = self._calls(self._held, "")
            return said + raw, calls + new
        if not self._inside:
            held = 0 if last else beginning(self._start, self._held)
            said, self._held = said + self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return said, calls

    def _mark(self) -> str:
        return self._end if self._inside else self._start

    def _calls(self, text: str, end: str) -> tuple[str, list[Call]]:
        try:
            parsed = self._parse(text, self._tools)
            calls = parsed if isinstance(parsed, list) else [parsed]
            return "", [_call(**call) for call in calls]
        except Exception:  # a model writes what it likes, and parsers fail at it in ways of their own
            return self._start + text + end, []


def _call(name: str, arguments: Any, id: str | None = None) -> Call:
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("no call")
    return Call(id or f"call_{uuid4().hex}", name, json.dumps(arguments, ensure_ascii=False))
