"""Metrics against cases worked out by hand."""

import pytest

from lazymlx.eval.metrics import METRICS, common_length, common_subsequence, fuzz_ratio, normalised


def test_normalisation_is_that_of_squad() -> None:
    assert normalised("The  Cat, a dog; an Ox's!") == "cat dog oxs"


@pytest.mark.parametrize(
    ("metric", "answer", "references", "score"),
    [
        ("exact", "The cat.", ["dog", "cat"], 1.0),
        ("exact", "cat sat", ["cat"], 0.0),
        ("exact", "The.", ["the"], 1.0),  # an article is an answer where it is all that was asked for
        ("exact", "a", ["the"], 0.0),
        ("exact", "", ["the"], 0.0),
        ("contains", "", ["the"], 0.0),
        ("contains", 'It is "Drelmina Thorsu", they say.', ["drelmina thorsu"], 1.0),
        ("contains", "407185", ["40718"], 0.0),  # whole words only
        ("subspan", "407185", ["40718"], 1.0),  # lost-in-the-middle's does not mind
        ("any", "It's 12-ab!", ["12-AB", "zz"], 1.0),
        ("any", "12 ab", ["12-ab"], 0.0),
        ("listed", "[1] Salt [2] Bread", ["[1] salt", "[2] Rye", "[2] bread", "[3] x"], 0.5),
        ("verbatim", " one two  three four\nfive six seven eig", ["one two three four five six seven eight nine"], 1.0),
        (
            "verbatim",
            "one two three four five six seven",
            ["one two three four five six seven eight"],
            0.0,
        ),  # too short
        ("verbatim", "one two three four five six seven ate", ["one two three four five six seven eight"], 0.0),
        # answer: red big cat; reference: big red dog: 2 words in common, precision 2/3, recall 2/3
        ("f1", "The red, big cat", ["big red dog"], 2 / 3),
        # precision 1/2, recall 1/1: 2 * .5 / 1.5
        ("f1", "blue whale", ["whale", "shark"], 2 / 3),
        ("f1", "nothing", ["whale"], 0.0),
        ("retrieval", "Paragraph 12 or paragraph 3", ["Paragraph 3"], 0.5),
        ("retrieval", "none", ["Paragraph 3"], 0.0),
        ("count", "7, 7 and 9", ["7"], 2 / 3),
        # the comment is skipped; "retrn x" against "return x": 7 common letters of 7 + 8
        ("code_similarity", "\n# so\nretrn x\ny", ["return x"], 0.93),
        ("code_similarity", "`x`\n// no", ["return x"], 0.0),
    ],
)
def test_worked_examples(metric: str, answer: str, references: list[str], score: float) -> None:
    assert METRICS[metric](answer, references, ()) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        # common subsequence "police the gunman" (lin 2004's example): 3 of 4 words on both sides
        ("police kill the gunman", "police ended the gunman", 0.75),
        # a second sentence adds words to the union: reference w1..w5; "w1 w2" and "w1 w3 w5" make 4 of its 5
        ("w1 w2 w6 w7 w8.w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * (4 / 8) * (4 / 5) / (4 / 8 + 4 / 5)),
        # words count once: {a, b} of {a, b} and of {a, b, c}
        ("a a b b", "a b c", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("", "a b", 0.0),
    ],
)
def test_rouge_l_of_worked_examples(answer: str, reference: str, score: float) -> None:
    assert METRICS["rouge_l"](answer, [reference], ()) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Human", 1.0),
        ("Human or Location", 0.5),
        ("Human group", 1.0),  # "group" is a part of no class that was named
        ("Location", 0.0),
        ("neither", 0.0),
    ],
)
def test_classification_divides_by_the_classes_named(answer: str, score: float) -> None:
    assert METRICS["classification"](answer, ["Human"], ["Human", "Location", "Entity"]) == score


def test_a_class_whose_name_is_part_of_the_right_one_is_not_held_against_it() -> None:
    assert METRICS["classification"]("Human group", ["Human group"], ["Human", "group", "Human group"]) == 1.0


def test_subsequences_agree_and_are_the_longest() -> None:
    assert common_subsequence("ABCBDAB", "BDCABA") == list("BDAB")  # the textbook's example; BCBA is as long
    assert common_length("ABCBDAB", "BDCABA") == 4
    assert common_length("", "abc") == 0


def test_fuzz_ratio_is_that_of_insertions_and_deletions() -> None:
    assert fuzz_ratio("abcd", "bcde") == 0.75  # 2 * 3 / 8; a substitution would count as two
    assert fuzz_ratio("", "") == 1.0
    assert fuzz_ratio("", "a") == 0.0
