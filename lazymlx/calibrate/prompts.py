"""Prompts whose answer stands somewhere in a long text: what selection must not lose.

Any chat model can be asked them: facts hidden in prose, values of keys, values of variables, a blank to fill in, a
passage to continue. The prose is the embedded document and generated notices, or the user's own texts. A prompt of n
tokens is made for every n; equal seeds give equal prompts, and no answer is ever needed.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import demo
from ..errors import PromptError

Count = Callable[[str], int]  # tokens of a text
SUFFIXES = (".txt", ".md", ".rst")
LEAST_WORDS = 24  # of a paragraph that is worth asking about
OVERHEAD = 64  # tokens left for the instruction, the question and the chat template
INSTRUCTION = "Answer with the exact words of the text, and nothing else."  # an answer's first tokens then carry it

FACTS = (
    ("The access code for the {a} project is {v}.", "What is the access code for the {a} project?"),
    ("According to the register, the keeper of {a} was {v}.", "Who or what was the keeper of {a}?"),
    ("The special magic number for {a} is: {v}.", "What is the special magic number for {a}?"),
    ("The shipment bound for {a} carries the label {v}.", "Which label does the shipment bound for {a} carry?"),
    ("One of the secret phrases of {a} is {v}.", "What is the secret phrase of {a}?"),
    ("Captain {a} was born in the town of {v}.", "In which town was Captain {a} born?"),
    ("The meeting with {a} takes place in {v}.", "Where does the meeting with {a} take place?"),
)
NOTICES = (
    "On the {n} day of the month the barge {a} brought {m} crates of {w} from {b}, and the clerk entered them twice.",
    "Nobody at {b} could say why the {w} store was locked, though {a} had asked for the key {m} times.",
    "The road from {a} to {b} was mended after {m} weeks, and the {w} carts went round by the mill until then.",
    "In the {n} year of the lease {a} sold the {w} field to a family from {b}, who kept {m} sheep on it.",
    "{a} wrote to the council of {b} about the {w} market, and had {m} answers, none of which agreed.",
)
WORDS = tuple(
    "harbor meadow falcon copper winter signal garden bridge river lantern cedar atlas comet ember orchid pilot quartz "
    "raven saddle timber umbrella violet walnut anchor beacon canyon delta engine forest".split()
)


@dataclass(frozen=True)
class Prompt:
    """What the user says, and which kind of question it ends with."""

    kind: str
    text: str


class Writer:
    """Composes prompts. `count` tells how many tokens a text has; `texts` replace the embedded document."""

    def __init__(self, count: Count, seed: str, texts: Sequence[Sequence[str]] = ()):
        self.count, self.random, self.texts = count, random.Random(seed), texts
        self.kinds: dict[str, Callable[[int], tuple[str, str]]] = {
            "fact": self.fact,
            "cloze": self.cloze,
            "quote": self.quote,
        }
        if not texts:
            self.kinds |= {"key-value": self.key_value, "variables": self.variables}

    def prompts(self, number: int, lengths: Sequence[int]) -> list[Prompt]:
        """`number` prompts, the lengths and kinds taking turns so that any first few of them are a fair sample."""
        kinds, made = list(self.kinds), []
        for i in range(number):
            turn, kind = divmod(i, len(kinds))
            made.append(self.prompt(kinds[kind], lengths[(turn + kind) % len(lengths)]))
        return made

    def prompt(self, kind: str, length: int) -> Prompt:
        """One prompt of about `length` tokens, and not more."""
        context, question = self.kinds[kind](length - OVERHEAD)
        return Prompt(kind, f"{INSTRUCTION}\n\n{context}\n\nQuestion: {question}")

    # the kinds

    def fact(self, budget: int) -> tuple[str, str]:
        facts = [self._fact() for _ in range(self.random.randint(2, 5))]
        paragraphs = self.prose(budget - sum(self.count(statement) for statement, _ in facts))
        for statement, _ in facts:
            i = self.random.randrange(len(paragraphs))
            sentences = paragraphs[i].split(". ")
            at = self.random.randrange(len(sentences))
            before, after = ". ".join(sentences[:at]), ". ".join(sentences[at:])
            paragraphs[i] = f"{before}. {statement} {after}" if before else f"{statement} {after}"
        return "\n\n".join(paragraphs), self.random.choice(facts)[1]

    def cloze(self, budget: int) -> tuple[str, str]:
        paragraphs = self.prose(budget)
        words = self._long(paragraphs).split()
        size, reach = self.random.randint(1, 3), self.random.randint(5, 8)
        at = self.random.randrange(reach, len(words) - size - 4)
        left, right = " ".join(words[at - reach : at]), " ".join(words[at + size : at + size + 4])
        return "\n\n".join(paragraphs), f"Fill in the blank: {left} ____ {right}"

    def quote(self, budget: int) -> tuple[str, str]:
        paragraphs = self.prose(budget)
        text = "\n\n".join(paragraphs)
        words = self._long(paragraphs).split()
        starts = [" ".join(words[i : i + 6]) for i in range(len(words) - 14)]
        clear = [start for start in starts if text.count(start) == 1]
        return text, f"Continue the text after: {self.random.choice(clear or starts)}"

    def key_value(self, budget: int) -> tuple[str, str]:
        digits, pairs = self.random.randint(5, 10), []
        lines = self._lines(budget, lambda: pairs.append((self._hex(digits), self._hex(digits))) or _entry(*pairs[-1]))
        key, _ = self.random.choice(pairs[: len(lines)])
        return "JSON data:\n{" + "\n ".join(lines) + "}", f'The value of key "{key}"?'

    def variables(self, budget: int) -> tuple[str, str]:
        names: list[str] = []

        def line() -> str:
            names.append(f"{self.random.choice(WORDS)}_{len(names)}")
            value = str(self.random.randint(10, 99999)) if self.random.random() < 0.6 else f'"{self.name()}"'
            return f"{names[-1]} = {value}"

        lines = self._lines(budget, line)
        return "```python\n" + "\n".join(lines) + "\n```", f"print({self.random.choice(names[: len(lines)])})"

    # material

    def prose(self, budget: int) -> list[str]:
        """Paragraphs of about `budget` tokens in all: of one of the user's texts in order, or of ours in any."""
        source = self._own() if not self.texts else self._of_texts()
        paragraphs: list[str] = []
        while True:
            paragraph = next(source)
            size = self.count(paragraph) + 2
            if size > budget:
                words = paragraph.split()
                fitting = len(words) * max(budget, 0) // size
                if fitting >= LEAST_WORDS or not paragraphs:
                    paragraphs.append(" ".join(words[: max(fitting, LEAST_WORDS)]))
                return paragraphs
            paragraphs.append(paragraph)
            budget -= size

    def _own(self):
        yield from self.random.sample(document := demo.document().split("\n\n"), len(document))
        while True:
            yield " ".join(self._notice() for _ in range(self.random.randint(3, 6)))

    def _of_texts(self):
        text = self.random.choice(self.texts)
        start = self.random.randrange(len(text))
        while True:  # a text that is too short goes on with others
            yield from text[start:]
            text, start = self.random.choice(self.texts), 0

    def _long(self, paragraphs: Sequence[str]) -> str:
        """A paragraph that one can ask about."""
        return self.random.choice(
            [p for p in paragraphs if len(p.split()) >= LEAST_WORDS] or [max(paragraphs, key=len)]
        )

    def _lines(self, budget: int, line: Callable[[], str]) -> list[str]:
        lines: list[str] = []
        while budget > 0:
            lines.append(line())
            budget -= self.count(lines[-1] + "\n")
        return lines[:-1]

    def _fact(self) -> tuple[str, str]:
        statement, question = self.random.choice(FACTS)
        name, value = f"{self.name()} {self.name()}", self._value()
        return statement.format(a=name, v=value), question.format(a=name)

    def _notice(self) -> str:
        n, m = self.random.choice(("first", "third", "fifth", "ninth", "last")), self.random.randint(11, 99)
        a, b, w = self.name(), self.name(), self.random.choice(WORDS)
        return self.random.choice(NOTICES).format(a=a, b=b, n=n, m=m, w=w)

    def _value(self) -> str:
        return self.random.choice(
            (
                str(self.random.randint(1000, 9999999)),
                f"{self.name()} {self.name()}",
                f"{self.random.choice(WORDS)}-{self.random.randint(10, 999)}",
                self._hex(8),
            )
        )

    def name(self) -> str:
        """A name that no text has used."""
        consonants, vowels = "b d f g k l m n p r s t v z br dr kr st th sh".split(), "a e i o u an el or in us".split()
        syllables = self.random.randint(2, 3)
        return "".join(self.random.choice(consonants) + self.random.choice(vowels) for _ in range(syllables)).title()

    def _hex(self, digits: int) -> str:
        return "".join(self.random.choices("0123456789abcdef", k=digits))


def _entry(key: str, value: str) -> str:
    return f"{json.dumps(key)}: {json.dumps(value)},"


def read_texts(folder: Path) -> list[list[str]]:
    """The paragraphs of every text file below a folder.

    Raises:
        PromptError: there is no such folder, no text in it, or a file is not UTF-8.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise PromptError(f"texts: expected a folder with text files, but {folder} is {what}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    texts = [text for text in (_paragraphs(path) for path in files) if text]
    if not texts:
        raise PromptError(
            f"texts: {folder} holds no paragraph of {LEAST_WORDS} words or more in files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return texts


def _paragraphs(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"texts: {path} is not readable as UTF-8 text: {error}") from None
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return [paragraph for paragraph in paragraphs if len(paragraph.split()) >= LEAST_WORDS]
