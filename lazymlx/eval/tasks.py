"""The generated tasks: any length, reproducible from a seed, in the forms that the embedded model was trained on.

A sample depends on its seed, task, length and index alone, hence not on what else is run. Its prompt has the length
asked for, or the few tokens more that the last word takes: never less, so that "1024" is not below `min_tokens`.
"""

import random
from collections.abc import Callable, Sequence

from ..errors import UsageError
from .encoding import Encoder
from .prose import cloze, facts, follow_up, multi_key, quote, titles
from .samples import Sample
from .structured import chains, key_value, labels, variables
from .work import Item, Work

ATTEMPTS = 8  # at a length
LEAST_LENGTH = 256  # tokens; shorter contexts do not hold what some tasks ask for

TASKS: dict[str, Callable[[Work], Item]] = {
    "facts": facts,
    "multikey": multi_key,
    "kv": key_value,
    "variables": variables,
    "chains": chains,
    "cloze": cloze,
    "quote": quote,
    "titles": titles,
    "labels": labels,
    "followup": follow_up,
}


def make(task: str, length: int, index: int, seed: int, encoder: Encoder) -> Sample:
    """One sample of a generated task."""
    room = length - encoder.overhead
    for _ in range(ATTEMPTS):
        sample = _make(task, length, index, seed, encoder, room)
        short = length - len(encoder.prompt(sample.message).tokens)
        if short <= 0:
            break
        room += short  # tokens that came together across the joints
    return sample


def _make(task: str, length: int, index: int, seed: int, encoder: Encoder, room: int) -> Sample:
    item = TASKS[task](Work(random.Random(f"{seed}/{task}/{length}/{index}"), encoder, room))
    first, *later = item.questions
    return Sample(
        task=task,
        length=length,
        index=index,
        message=ask(item.context, first) + encoder.cue,
        references=item.answers,
        metric=item.metric,
        max_tokens=item.max_tokens,
        follow_ups=tuple(f"Question: {question}" for question in later),
    )


def ask(context: str, question: str) -> str:
    """The message that asks a question about a context."""
    return f"{context}\n\nQuestion: {question}"


def check_tasks(names: Sequence[str]) -> None:
    """Refuse names that are no tasks."""
    for name in names:
        if name not in TASKS:
            raise UsageError(f"--tasks: there is no task {name!r}; tasks are {', '.join(TASKS)}")


def check_lengths(lengths: Sequence[int]) -> None:
    """Refuse lengths that no context fits into."""
    for length in lengths:
        if length < LEAST_LENGTH:
            raise UsageError(f"--lengths: must be at least {LEAST_LENGTH} tokens, got {length}")
