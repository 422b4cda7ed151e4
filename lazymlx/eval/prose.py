"""Tasks about prose: hidden facts, blanks, verbatim quotes, titles, and a second question."""

import math

from ..errors import UsageError
from .facts import FACTS
from .haystack import NUMBERED, PLAIN, TITLED, Document, Haystack
from .work import Item, Work

STYLES = (TITLED, NUMBERED, PLAIN)
MOST_KEYS = 8
TOKENS_PER_KEY = 64  # of context, below `MOST_KEYS`
MOST_TITLES = 12  # about
PASSAGE_TOKENS = 165  # of a passage and its head, on average
RESERVE = 64  # tokens kept back for a question that is found in the context
CUE, QUOTED = 6, 34  # words of a quotation's beginning, and least words behind it
QUOTE_TOKENS = 30
FACT_TOKENS = 20


def facts(work: Work) -> Item:
    """One fact at a random depth."""
    statement, question = work.rng.choice(FACTS)
    name, value = work.name(), work.code()
    return _hidden(work, [statement.format(a=name, v=value)], (question.format(a=name),), value)


def multi_key(work: Work) -> Item:
    """Many facts of one form about different names: only the right name's counts."""
    statement, question = work.rng.choice(FACTS)
    count = max(2, min(MOST_KEYS, work.room // TOKENS_PER_KEY))
    names = work.names(count)
    values = [work.code() for _ in names]
    sentences = [statement.format(a=name, v=value) for name, value in zip(names, values, strict=True)]
    return _hidden(work, sentences, (question.format(a=names[0]),), values[0])


def follow_up(work: Work) -> Item:
    """Two facts in different halves of the context: the second question needs what the first one did not."""
    (first, first_question), (second, second_question) = work.rng.sample(FACTS, 2)
    (name, other), value = work.names(2), work.code()
    sentences = [first.format(a=name, v=work.code()), second.format(a=other, v=value)]
    questions = (first_question.format(a=name), second_question.format(a=other))
    return _hidden(work, sentences, questions, value, apart=True)


def _hidden(work: Work, sentences: list[str], questions: tuple[str, ...], answer: str, apart: bool = False) -> Item:
    haystack = Haystack(work, work.rng.choice(STYLES))
    haystack.grow(work.room_beside(questions[0]) - sum(map(work.encoder.words, sentences)))
    halves = work.rng.sample([(0.0, 0.5), (0.5, 1.0)], 2) if apart else [(0.0, 1.0)] * len(sentences)
    for sentence, (start, stop) in zip(sentences, halves, strict=True):
        haystack.plant(sentence, start, stop)
    return Item(haystack.text(), questions, (answer,), "contains", FACT_TOKENS)


def cloze(work: Work) -> Item:
    """A sentence of the context with a blank for one to three words."""
    haystack = Haystack(work, work.rng.choice(STYLES))
    haystack.grow(work.room - RESERVE)
    text = haystack.text()
    while True:
        words = _document(work, haystack, CUE * 4).words
        place, gap = work.rng.randrange(8, len(words) - 8), work.rng.randint(1, 3)
        if not words[place][0].isupper() and work.rng.random() < 0.7:
            continue  # mostly names and numbers, as in training
        left = " ".join(words[place - work.rng.randint(5, 8) : place])
        missing = " ".join(words[place : place + gap])
        right = " ".join(words[place + gap : place + gap + work.rng.randint(3, 5)])
        if text.count(left) == text.count(f"{left} {missing} {right}"):
            break  # wherever the text goes on from here, it goes on like this
    question = f"Fill in the blank: {left} ____ {right}"
    haystack.grow(work.room_beside(question) - work.encoder.count(text))
    return Item(haystack.text(), (question,), (missing,), "exact", FACT_TOKENS)


def quote(work: Work) -> Item:
    """Go on after six words, word by word: the hard case for pruning, since a long answer needs its whole source."""
    haystack = Haystack(work, work.rng.choice((TITLED, NUMBERED)))
    haystack.grow(work.room - RESERVE)
    text = haystack.text()
    while True:
        words = _document(work, haystack, CUE + QUOTED + 1).words
        place = work.rng.randrange(len(words) - CUE - QUOTED)
        cue = " ".join(words[place : place + CUE])
        expected = " ".join(words[place + CUE : place + CUE + QUOTED])
        if text.count(cue) == text.count(f"{cue} {expected}"):
            break
    question = f"Continue the text after: {cue}"
    haystack.grow(work.room_beside(question) - work.encoder.count(text))
    return Item(haystack.text(), (question,), (expected,), "verbatim", QUOTE_TOKENS)


def _document(work: Work, haystack: Haystack, least_words: int) -> Document:
    """A random document of at least this many words."""
    found = [document for document in haystack.documents if len(document.words) >= least_words]
    if not found:
        raise UsageError(f"--lengths: a context of {work.room} tokens has no document of {least_words} words")
    return work.rng.choice(found)


def titles(work: Work) -> Item:
    """List the titles of all documents, in order; longer contexts have longer documents, not more and more of them."""
    question = "List the titles of all documents."
    haystack = Haystack(work, TITLED, per_document=math.ceil(work.room / PASSAGE_TOKENS / MOST_TITLES))
    haystack.grow(work.room_beside(question))
    found = [f"[{k}] {document.title}" for k, document in enumerate(haystack.documents, 1)]
    return Item(haystack.text(), (question,), tuple(found), "listed", work.encoder.count(" ".join(found)) + 8)
