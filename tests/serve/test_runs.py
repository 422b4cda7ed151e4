"""Runs that a prompt has in common with earlier ones, wherever they stand."""

import numpy as np
from tiny import random_tokens

from lazymlx.serve.runs import LEAST, CommonRun, common_runs


def some(length: int, seed: int) -> list[int]:
    return random_tokens(length, seed, vocab=30_000)


def array(*parts: list[int]) -> np.ndarray:
    return np.array([token for part in parts for token in part], np.int32)


def test_runs_are_found_to_their_last_token_wherever_they_stand() -> None:
    one, two = some(LEAST, 1), some(700, 2)
    for before in range(1, 140, 23):  # wherever the blocks begin
        texts = [array(some(before, 3), two, some(50, 4)), array(some(31, 5), one)]
        tokens = array(some(10, 6), one, some(5, 7), two, some(300, 8))
        assert common_runs(tokens, texts) == [CommonRun(10, 1, 31, LEAST), CommonRun(15 + LEAST, 0, before, 700)]


def test_a_run_that_is_too_short_is_none() -> None:
    text = some(LEAST - 1, 1)
    assert common_runs(array(some(9, 2), text, some(9, 3)), [array(some(5, 4), text)]) == []
    assert common_runs(array(text), []) == [] and common_runs(array(), [array(text)]) == []


def test_runs_do_not_overlap_and_are_equal_where_texts_repeat_themselves() -> None:
    rng = np.random.default_rng(0)
    parts = [some(300, seed) for seed in range(3)]
    for _ in range(20):
        tokens, *texts = (array(*(parts[i] for i in rng.integers(3, size=12))) for _ in range(3))
        found, end = common_runs(tokens, texts), 0
        assert found
        for at, text, start, length in found:
            assert at >= end and length >= LEAST
            assert (tokens[at : at + length] == texts[text][start : start + length]).all()
            end = at + length


def test_what_is_not_to_be_had_ends_a_run() -> None:
    text = array(some(2 * LEAST + 10, 1))
    hidden = text.copy()
    hidden[LEAST : LEAST + 10] = -1
    expected = [CommonRun(3, 0, 0, LEAST), CommonRun(LEAST + 13, 0, LEAST + 10, LEAST)]
    assert common_runs(array(some(3, 2), text.tolist()), [hidden]) == expected
