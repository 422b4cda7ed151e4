"""Prose of a wanted length with sentences hidden in it."""

from dataclasses import dataclass, field

from .passages import shuffled
from .work import Work

TITLED, NUMBERED, PLAIN = "titled", "numbered", "plain"
HEADS = {TITLED: "\nDocument [{k}] (Title: {title})", NUMBERED: "\n\nDocument {k}:", PLAIN: "\n\n"}
LEAST_DOCUMENT = 40  # tokens; what is left at the end goes to the document before


@dataclass
class Document:
    title: str
    words: list[str] = field(default_factory=list)


class Haystack:
    """Documents that grow word by word, so that a length is met to the word.

    Args:
        style: how documents are headed; the three forms that the embedded model was trained on.
        per_document: passages in a document; what it is called is the first one's title.
    """

    def __init__(self, work: Work, style: str, per_document: int = 1):
        self.work, self.style, self.per_document = work, style, per_document
        self.documents: list[Document] = []
        self._passages = shuffled(work.rng)
        self._words: list[str] = []  # of the newest passage, still to be used, the next one last
        self._in_document = 0  # passages that the newest document has begun

    def grow(self, tokens: int) -> None:
        """Add at least `tokens` tokens, and less than a word more."""
        while tokens > 0:
            if not self._words:
                tokens -= self._next_passage(tokens)
            word = self._words.pop()
            self.documents[-1].words.append(word)
            tokens -= self.work.encoder.word(word)

    def _next_passage(self, room: int) -> int:
        """Begin a passage; returns the tokens of a new document's head, if it begins one and there is room for it."""
        passage = next(self._passages)
        self._words = passage.text.split()[::-1]
        self._in_document = self._in_document % self.per_document + 1
        if self.documents and (self._in_document > 1 or room < LEAST_DOCUMENT):
            return 0
        self.documents.append(Document(passage.title))
        return self.work.encoder.count(self._head(len(self.documents) - 1))

    def _head(self, number: int) -> str:
        return HEADS[self.style].format(k=number + 1, title=self.documents[number].title)

    def plant(self, sentence: str, start: float = 0.0, stop: float = 1.0) -> None:
        """Put a sentence between two others, somewhere in this part of the text."""
        ends = [
            (document, place + 1)
            for document in self.documents
            for place, word in enumerate(document.words)
            if word.endswith(".")
        ]
        part = ends[int(start * len(ends)) : max(int(stop * len(ends)), 1)]
        document, place = self.work.rng.choice(part or [(self.documents[-1], len(self.documents[-1].words))])
        document.words[place:place] = sentence.split()

    def text(self) -> str:
        """The documents under their heads; the first line break is left to the chat template."""
        parts = [f"{self._head(k)} {' '.join(document.words)}" for k, document in enumerate(self.documents)]
        return "".join(parts)[1:]
