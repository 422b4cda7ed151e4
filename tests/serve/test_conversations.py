"""What is kept of earlier requests, and what goes first."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx.engine.model import Model
from lazymlx.serve.conversations import SMALL, Conversation, Conversations, common

LONG = SMALL + 40


@pytest.fixture(scope="module")
def model() -> Model:
    return twin_of(stock_model(tiny_args()))


class Fake:
    """The cache of a conversation, where only its size matters."""

    def __init__(self, nbytes: int):
        self.nbytes = nbytes


def kept(conversations: Conversations, *tokens: list[int]) -> None:
    for some in tokens:
        conversations.keep(Conversation(Fake(len(some)), np.array(some, np.int32)))  # type: ignore[arg-type]


def lengths(conversations: Conversations) -> list[int]:
    return [len(conversation.tokens) for conversation in conversations._kept]


def test_the_one_used_longest_ago_goes(model: Model) -> None:
    conversations = Conversations(model, 2)
    kept(conversations, *(random_tokens(LONG + i, seed=i) for i in range(4)))
    assert lengths(conversations) == [LONG + 2, LONG + 3]


def test_small_ones_never_evict_a_document(model: Model) -> None:
    conversations = Conversations(model, 2)
    kept(conversations, random_tokens(LONG, seed=1), random_tokens(LONG + 1, seed=2))
    kept(conversations, *(random_tokens(60, seed=seed) for seed in range(3, 40)))
    assert lengths(conversations) == [LONG, LONG + 1]


def test_a_branch_with_little_of_its_own_is_small_however_long(model: Model) -> None:
    conversations, document = Conversations(model, 2), random_tokens(LONG, seed=1)
    kept(conversations, document, random_tokens(LONG + 1, seed=2), [*document, *random_tokens(10, seed=3)])
    assert lengths(conversations) == [LONG + 1, LONG + 10]  # it has all that the document had


def test_a_budget_of_bytes_is_kept_to(model: Model) -> None:
    conversations = Conversations(model, 10)
    kept(conversations, random_tokens(LONG, seed=1), random_tokens(LONG, seed=2), random_tokens(20, seed=3))
    assert conversations.shrink(2 * LONG + 20) == 2 * LONG + 20
    assert conversations.shrink(2 * LONG + 19) == 2 * LONG
    assert conversations.shrink(0) == 0


def test_one_that_continues_is_taken_out_and_of_another_a_fork_is_made(model: Model) -> None:
    conversations, tokens = Conversations(model, 4), random_tokens(50)
    first = conversations.take(tokens)
    model(mx.array([tokens]), cache=[first.cache])
    first.took_in(tokens)
    conversations.keep(first)
    assert conversations.take([*tokens, 1]) is first
    conversations.keep(first)
    fork = conversations.take([*tokens[:30], 63, 62, 1])
    assert fork is not first and fork.cache.offset == len(fork.tokens) == 30 and first.cache.offset == 50
    assert lengths(conversations) == [50]


def test_what_two_runs_have_in_common() -> None:
    runs = ([], [1], [1, 2, 3], [1, 2, 4, 5], [7])
    for one in runs:
        for other in runs:
            expected = 0
            while expected < min(len(one), len(other)) and one[expected] == other[expected]:
                expected += 1
            assert common(np.array(one, np.int32), np.array(other, np.int32)) == expected
