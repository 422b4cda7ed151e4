"""What prompts are made of: prose, code, and what is invented. Prose is the embedded document and made-up notices,
or the user's own texts; code is this package's own. Equal seeds give equal material."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from .. import demo
from ..errors import PromptError
from ..eval.invented import WORDS, Inventor

Count = Callable[[str], int]  # tokens of a text
PACKAGE = Path(__file__).parents[1]
SUFFIXES = (".txt", ".md", ".rst")
LEAST_WORDS = 24  # of a paragraph that is worth asking about

NOTICES = (
    "On the {n} day of the month the barge {a} brought {m} crates of {w} from {b}, and the clerk entered them twice.",
    "Nobody at {b} could say why the {w} store was locked, though {a} had asked for the key {m} times.",
    "The road from {a} to {b} was mended after {m} weeks, and the {w} carts went round by the mill until then.",
    "In the {n} year of the lease {a} sold the {w} field to a family from {b}, who kept {m} sheep on it.",
    "{a} wrote to the council of {b} about the {w} market, and had {m} answers, none of which agreed.",
)


class Material(Inventor):
    """Texts of wanted lengths. `count` tells how many tokens a text has."""

    def __init__(self, count: Count, seed: str, texts: Sequence[Sequence[str]] = ()):
        super().__init__(random.Random(seed))
        self.count, self.texts = count, texts

    def prose(self, budget: int) -> list[str]:
        """Paragraphs of about `budget` tokens in all: of one of the user's texts in order, or of ours in any."""
        source = self._of_texts() if self.texts else self._own()
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

    def with_sentences(self, sentences: Sequence[str], budget: int) -> str:
        """Prose with these sentences somewhere in it."""
        paragraphs = self.prose(budget - sum(map(self.count, sentences)))
        for sentence in sentences:
            i = self.rng.randrange(len(paragraphs))
            others = paragraphs[i].split(". ")
            at = self.rng.randrange(len(others))
            before, after = ". ".join(others[:at]), ". ".join(others[at:])
            paragraphs[i] = f"{before}. {sentence} {after}" if before else f"{sentence} {after}"
        return "\n\n".join(paragraphs)

    def sources(self, budget: int) -> list[str]:
        """Definitions of about `budget` tokens in all, at least one."""
        found: list[str] = []
        for block in self.rng.sample(definitions(), len(definitions())):
            size = self.count(block) + 3
            if size <= budget:
                found.append(block)
                budget -= size
        return found or [min(definitions(), key=len)]

    def lines(self, budget: int, line: Callable[[], str]) -> list[str]:
        """Lines of about `budget` tokens in all, at least one."""
        lines = [line()]
        budget -= self.count(lines[0] + "\n")
        while True:
            more = line()
            budget -= self.count(more + "\n")
            if budget < 0:
                return lines
            lines.append(more)

    def long(self, paragraphs: Sequence[str]) -> str:
        """A paragraph that one can ask about."""
        return self.rng.choice([p for p in paragraphs if len(p.split()) >= LEAST_WORDS] or [max(paragraphs, key=len)])

    def notice(self) -> str:
        """A made-up sentence."""
        n, m = self.rng.choice(("first", "third", "fifth", "ninth", "last")), self.rng.randint(11, 99)
        a, b, w = self.name(), self.name(), self.rng.choice(WORDS)
        return self.rng.choice(NOTICES).format(a=a, b=b, n=n, m=m, w=w)

    def _own(self) -> Iterator[str]:
        yield from self.rng.sample(document := demo.document().split("\n\n"), len(document))
        while True:
            yield " ".join(self.notice() for _ in range(self.rng.randint(3, 6)))

    def _of_texts(self) -> Iterator[str]:
        text = self.rng.choice(self.texts)
        start = self.rng.randrange(len(text))
        while True:  # a text that is too short goes on with others
            yield from text[start:]
            text, start = self.rng.choice(self.texts), 0


@cache
def definitions() -> tuple[str, ...]:
    """Functions and classes of this package, as they stand in its files."""
    blocks = [
        block.strip()
        for path in sorted(PACKAGE.rglob("*.py"))
        for block in path.read_text(encoding="utf-8").split("\n\n\n")
    ]
    return tuple(block for block in blocks if block.startswith(("def ", "class ")))


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
