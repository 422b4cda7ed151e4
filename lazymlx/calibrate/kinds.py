"""The kinds of prompts that a schedule must not harm: a long text, and a question whose answer stands in it.

Each kind asks something else of selection: one sentence of many, two that belong together, one of many pairs that look
alike, a passage word for word, or the whole. Any chat model can be asked them, and no answer is needed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..eval.facts import FACTS
from ..eval.invented import WORDS
from .material import Count, Material

OVERHEAD = 64  # tokens left for the question and the chat template

HOPS = (
    (
        "The harbour of {a} belongs to {b}.",
        "{b} was born in the year {v}.",
        "When was the owner of {a}'s harbour born?",
    ),
    ("{a} was painted by {b}.", "{b} lived at {v}.", "Where did the painter of {a} live?"),
    (
        "The project {a} is led by {b}.",
        "{b} can be reached under {v}.",
        "How can the leader of project {a} be reached?",
    ),
)
COLUMNS = ("harbour", "cargo", "weight", "captain", "seal")
TELLING = 4  # words that tell a label
LABELS = 4
EXAMPLE_WORDS = (6, 12)

Made = tuple[str, str]  # a context and a question about it


@dataclass(frozen=True)
class Prompt:
    """What the user says, and which kind of question it ends with."""

    kind: str
    text: str


def prose(m: Material, budget: int) -> Made:
    """One of several facts that are hidden in prose."""
    facts = []
    for _ in range(m.rng.randint(2, 5)):
        statement, question = m.rng.choice(FACTS)
        name = f"{m.name()} {m.name()}"
        facts.append((statement.format(a=name, v=m.code()), question.format(a=name)))
    return m.with_sentences([statement for statement, _ in facts], budget), m.rng.choice(facts)[1]


def two_hop(m: Material, budget: int) -> Made:
    """A fact that names what another fact is about; both have decoys of the same form."""
    first, second, question = m.rng.choice(HOPS)
    pairs = [(m.name(), f"{m.name()} {m.name()}") for _ in range(3)]
    sentences = [first.format(a=a, b=b) for a, b in pairs] + [second.format(b=b, v=m.code()) for _, b in pairs]
    return m.with_sentences(sentences, budget), question.format(a=pairs[0][0])


def table(m: Material, budget: int) -> Made:
    """A cell of a table, or a field of a record in JSON."""
    ships: list[str] = []

    def cells() -> list[str]:
        ships.append(m.name())
        return [m.name(), m.rng.choice(WORDS), str(m.rng.randint(100, 9999)), m.name(), m.hexadecimal(6)]

    def row() -> str:
        return "| " + " | ".join([ships[-1], *values]) + " |" if (values := cells()) else ""

    def record() -> str:
        values = cells()
        return json.dumps({"ship": ships[-1], **dict(zip(COLUMNS, values, strict=True))}) + ","

    in_json = m.rng.random() < 0.5
    lines = m.lines(budget, record if in_json else row)
    head = ["["] if in_json else ["| ship | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    ship = m.rng.choice(ships[: len(lines)])
    return "\n".join([*head, *lines, *"]"[:in_json]]), f"What is the {m.rng.choice(COLUMNS)} of the ship {ship}?"


def key_value(m: Material, budget: int) -> Made:
    """The value of one key among many that look alike."""
    digits, keys = m.rng.randint(5, 10), []

    def pair() -> str:
        keys.append(m.hexadecimal(digits))
        return f"{json.dumps(keys[-1])}: {json.dumps(m.hexadecimal(digits))},"

    lines = m.lines(budget, pair)
    return "JSON data:\n{" + "\n ".join(lines) + "}", f'The value of key "{m.rng.choice(keys[: len(lines)])}"?'


def quote(m: Material, budget: int) -> Made:
    """Go on with a passage word for word."""
    paragraphs = m.prose(budget)
    text = "\n\n".join(paragraphs)
    words = m.long(paragraphs).split()
    starts = [" ".join(words[i : i + 6]) for i in range(len(words) - 14)]
    clear = [start for start in starts if text.count(start) == 1]
    return text, f"Continue the text after: {m.rng.choice(clear or starts)}"


def code(m: Material, budget: int) -> Made:
    """What one of many definitions does."""
    blocks = m.sources(budget)
    name = m.rng.choice(blocks).split()[1].split("(")[0].rstrip(":")
    return "```python\n" + "\n\n\n".join(blocks) + "\n```", f"What does `{name}` do, and what does it take?"


def many_shot(m: Material, budget: int) -> Made:
    """Label a text by one word in it, whose label only the examples tell."""
    labels = [m.name() for _ in range(LABELS)]
    telling = m.rng.sample(WORDS, LABELS * TELLING)

    def example() -> str:
        kind = m.rng.randrange(LABELS)
        word = m.rng.choice(telling[kind * TELLING : (kind + 1) * TELLING])
        words = m.notice().split()[: m.rng.randint(*EXAMPLE_WORDS)]
        words.insert(m.rng.randrange(len(words)), word)
        return f"Text: {' '.join(words)}\nLabel: {labels[kind]}"

    asked = example().rsplit("\n", 1)[0].removeprefix("Text: ")
    return "Label each text.\n" + "\n".join(m.lines(budget, example)), f"Label this text: {asked}"


def summary(m: Material, budget: int) -> Made:
    """What the whole is about."""
    return "\n\n".join(m.prose(budget)), "What is the text about? Sum it up in two sentences."


KINDS: dict[str, Callable[[Material, int], Made]] = {
    "prose": prose,
    "two-hop": two_hop,
    "table": table,
    "key-value": key_value,
    "quote": quote,
    "code": code,
    "many-shot": many_shot,
    "summary": summary,
}


def check_kinds(names: Sequence[str]) -> None:
    """Refuse names that are no kinds, and names given twice.

    Raises:
        UsageError: the message lists the kinds.
    """
    for name in names:
        if name not in KINDS:
            raise UsageError(f"kinds: there is no kind {name!r}; kinds are {', '.join(KINDS)}")
    if len(set(names)) < len(names):
        raise UsageError(f"kinds: each once, got {', '.join(names)}")


class Writer:
    """Composes prompts of some kinds; `texts` replace the embedded document."""

    def __init__(self, count: Count, seed: str, kinds: Sequence[str], texts: Sequence[Sequence[str]] = ()):
        self.kinds, self.material = kinds, Material(count, seed, texts)

    def prompts(self, number: int, lengths: Sequence[int]) -> list[Prompt]:
        """`number` prompts a kind, the lengths and kinds taking turns so that any first few are a fair sample."""
        return [
            self.prompt(kind, lengths[(turn + place) % len(lengths)])
            for turn in range(number)
            for place, kind in enumerate(self.kinds)
        ]

    def prompt(self, kind: str, length: int) -> Prompt:
        """One prompt of about `length` tokens."""
        context, question = KINDS[kind](self.material, length - OVERHEAD)
        return Prompt(kind, f"{context}\n\nQuestion: {question}")
