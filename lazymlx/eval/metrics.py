"""How right an answer is, from 0 to 1: our own tasks' metrics and those of the published sets.

LongBench's are those of its `metrics.py` (github.com/THUDM/LongBench, MIT), and ROUGE-L is that of the package `rouge`,
which it calls. One difference: where a class's name is part of another's, LongBench removes list entries while it
walks over them and so may overlook one; here none is overlooked.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

Metric = Callable[[str, Sequence[str], Sequence[str]], float]
"""(answer, references, classes) -> score. More than one reference: the best counts, if not said otherwise."""

LEAST_QUOTED = 8  # words; a shorter quotation is none
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and surplus blanks (SQuAD's normalisation)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def _comparable(text: str) -> str:
    """Normalised, with its articles if nothing is left without: one may be all that was asked for."""
    return normalised(text) or " ".join(text.lower().translate(PUNCTUATION).split())


def exact(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The answer is a reference, once both are normalised."""
    return float(any(_comparable(answer) == _comparable(reference) for reference in references))


def contains(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """A reference's words stand in the answer, normalised, in their order and as whole words."""
    return float(any(f" {_comparable(reference)} " in f" {_comparable(answer)} " for reference in references))


def subspan(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """A reference stands in the answer, normalised (lost-in-the-middle's `best_subspan_em`)."""
    return float(any(normalised(reference) in normalised(answer) for reference in references))


def any_string(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """A reference stands in the answer, whatever its case (RULER's `string_match_part`, used for its QA)."""
    return float(any(reference.lower() in answer.lower() for reference in references))


def listed(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Share of the references that stand in the answer, whatever their case (RULER's `string_match_all`)."""
    return sum(reference.lower() in answer.lower() for reference in references) / len(references)


def verbatim(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The answer is a reference's beginning, letter by letter but for blanks, and at least eight words of it."""
    quoted = " ".join(answer.split())
    long_enough = len(quoted.split()) >= LEAST_QUOTED
    return float(long_enough and any(" ".join(reference.split()).startswith(quoted) for reference in references))


def f1(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Harmonic mean of the precision and recall of words, normalised (LongBench's `qa_f1_score`)."""
    return max(_word_f1(normalised(answer).split(), normalised(reference).split()) for reference in references)


def _word_f1(answer: list[str], reference: list[str]) -> float:
    common = sum((Counter(answer) & Counter(reference)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def rouge_l(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """ROUGE-L of summaries (LongBench's `rouge_score`)."""
    return max(_rouge_l(_sentences(answer), _sentences(reference)) for reference in references)


def _sentences(text: str) -> list[list[str]]:
    """Sentences as words, split as the package `rouge` splits them: at full stops and single blanks."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _rouge_l(answer: list[list[str]], reference: list[list[str]]) -> float:
    """F-measure of the different words in the common subsequences of all pairs of sentences."""
    if not answer or not reference:
        return 0.0
    common: set[str] = set()
    for expected in reference:
        for said in answer:
            common.update(common_subsequence(expected, said))
    precision, recall = (len(common) / len({word for s in side for word in s}) for side in (answer, reference))
    return 2 * precision * recall / (precision + recall + 1e-8)


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """A longest common subsequence; of several, the one that `rouge` finds."""
    lengths = [[0] * (len(b) + 1)]
    for x in a:
        row, above = [0], lengths[-1]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
        lengths.append(row)
    i, j, found = len(a), len(b), []
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            found.append(a[i])
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def classification(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The class is named; each further class named beside it divides the score (LongBench's `classification_score`)."""
    return max(_classified(answer, reference, classes) for reference in references)


def _classified(answer: str, reference: str, classes: Sequence[str]) -> float:
    named = [c for c in classes if c in answer and not (c in reference and c != reference)]
    return 1 / len(named) if reference in named else 0.0


def retrieval(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Share of the numbers in the answer that are the paragraph's (LongBench's `retrieval_score`)."""
    return max(_right_numbers(answer, *re.findall(r"Paragraph (\d+)", reference)[:1]) for reference in references)


def count(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Share of the numbers in the answer that are the right one (LongBench's `count_score`)."""
    return max(_right_numbers(answer, reference) for reference in references)


def _right_numbers(answer: str, right: str = "") -> float:
    numbers = re.findall(r"\d+", answer)
    return numbers.count(right) / len(numbers) if numbers else 0.0


def code_similarity(answer: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """Similarity of the first line that is neither comment nor mark-up (LongBench's `code_sim_score`)."""
    lines = (line for line in answer.lstrip("\n").split("\n") if not any(mark in line for mark in ("`", "#", "//")))
    line = next(lines, "")
    return max(fuzz_ratio(line, reference) for reference in references)


def fuzz_ratio(a: str, b: str) -> float:
    """Twice the common subsequence over both lengths, to two places: `fuzz.ratio` on a Levenshtein backend."""
    if a == b:
        return 1.0
    return round(200 * common_length(a, b) / (len(a) + len(b))) / 100


def common_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row of the table at a time, as the bits of a number (Hyyro 2004)."""
    places: dict[Hashable, int] = {}
    for i, x in enumerate(a):
        places[x] = places.get(x, 0) | 1 << i
    everything = (1 << len(a)) - 1
    row = everything
    for y in b:
        matches = row & places.get(y, 0)
        row = (row + matches | row - matches) & everything
    return len(a) - row.bit_count()


METRICS: dict[str, Metric] = {
    "exact": exact,
    "contains": contains,
    "subspan": subspan,
    "any": any_string,
    "listed": listed,
    "verbatim": verbatim,
    "f1": f1,
    "rouge_l": rouge_l,
    "classification": classification,
    "retrieval": retrieval,
    "count": count,
    "code_similarity": code_similarity,
}
