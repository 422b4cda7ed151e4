"""What is taken for a prompt, and what is refused before anything is computed."""

import mlx.core as mx
import pytest
from talking import DOCUMENT, LAZY, session, speller, talker

from lazymlx.config import LazyConfig
from lazymlx.engine.selection import Scorer
from lazymlx.errors import PromptError, UsageError
from lazymlx.generation import generate, generate_step
from lazymlx.prefill import token_ids


def test_token_ids_come_in_any_integer_form():
    for given in ([3, 1, 2], (3, 1, 2), mx.array([3, 1, 2]), mx.array([[3, 1, 2]])):
        assert token_ids(given) == [3, 1, 2]


@pytest.mark.parametrize(
    "given, said",
    [
        ([], "it is empty"),
        (mx.array([[1, 2], [3, 4]]), r"of one prompt, got int32 of shape \(2, 2\)"),
        (mx.array([1.5, 2.0]), "of one prompt, got float32"),
        ([5, 100_000], "expected tokens from 0 to"),
        ([-1, 5], "got some from -1 to 5"),
    ],
)
def test_what_is_no_single_prompt_is_refused(given, said):
    model = talker()
    with pytest.raises(PromptError, match=said):
        next(generate_step(given, model, max_tokens=1))


def test_a_batch_is_not_taken_for_one_long_prompt():
    with pytest.raises(PromptError, match="of one prompt"):
        generate(talker(), speller(), mx.array([[5, 6], [5, 6]]), max_tokens=1)


class Short(Scorer):
    """Forgets a key."""

    def __call__(self, queries, keys, visible):
        return mx.zeros((keys.shape[1] - 1,))


def test_a_scorer_that_does_not_score_every_key_is_named():
    s = session(LazyConfig(LAZY.schedule, min_tokens=0, scorer=Short()))
    s.read(DOCUMENT)
    with pytest.raises(UsageError, match="scorer: expected an importance for each of"):
        list(s.ask("who?"))
