"""What is kept of earlier requests, and what goes first."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import random_tokens, stock_model, tiny_args, twin_of

from lazymlx.engine.model import Model
from lazymlx.serve.conversations import SMALL, Conversations, ServedConversation
from lazymlx.serve.disk import Disk, common

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
        conversations.keep(ServedConversation(Fake(len(some)), np.array(some, np.int32)))  # type: ignore[arg-type]
        conversations.shed()


def lengths(conversations: Conversations) -> list[int]:
    return [len(conversation.tokens) for conversation in conversations.kept]


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


# --- on the disk -----------------------------------------------------------------------------------------


def read(model: Model, conversations: Conversations, tokens: list[int]) -> ServedConversation:
    """Goes on with a conversation. Returns what was there before."""
    found = conversations.take(tokens)
    before = ServedConversation(found.cache, found.tokens)
    model(mx.array([tokens[len(found.tokens) :]]), cache=[found.cache])
    found.took_in(tokens)
    conversations.keep(found)
    conversations.shed()
    return before


def test_what_goes_comes_back_from_the_disk_after_a_restart_too(model: Model, tmp_path: Path) -> None:
    one, two = random_tokens(LONG + SMALL, seed=1), random_tokens(LONG + SMALL, seed=2)
    conversations = Conversations(model, 1, Disk(tmp_path, model, 4))
    for tokens in (one, two):
        assert len(read(model, conversations, tokens).tokens) == 0
    assert len(list(tmp_path.iterdir())) == 1
    again = Conversations(model, 1, Disk(tmp_path, model, 4))
    assert read(model, again, [*one, 1]).tokens.tolist() == one
    assert read(model, again, [*one[: SMALL + 10], 63, 62]).cache.offset == SMALL + 10 + 2  # a branch of it


def test_the_disk_keeps_the_newest_state_and_no_more_than_it_should(model: Model, tmp_path: Path) -> None:
    disk = Disk(tmp_path, model, 2)
    cache = model.make_cache()[0]
    for length in (20, 40):
        model(mx.array([random_tokens(40)[cache.offset : length]]), cache=[cache])
        disk.keep(cache, np.array(random_tokens(40)[:length], np.int32))
    assert disk.find(np.array(random_tokens(40), np.int32))[1] == 40 and len(list(tmp_path.iterdir())) == 1
    for seed in range(3, 7):
        disk.keep(cache, np.array(random_tokens(40, seed=seed), np.int32))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_removed_and_another_model_s_left_alone(model: Model, tmp_path: Path) -> None:
    tokens = random_tokens(LONG + SMALL, seed=1)
    conversations = Conversations(model, 1, Disk(tmp_path, model, 4))
    for some in (tokens, random_tokens(LONG, seed=2)):
        read(model, conversations, some)
    assert Disk(tmp_path, twin_of(stock_model(tiny_args(), seed=1)), 4).find(np.array(tokens, np.int32)) == (None, 0)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert len(read(model, conversations, tokens).tokens) == 0
    assert path not in tmp_path.iterdir()
    (tmp_path / "junk.lazymlx").write_text("junk", encoding="utf-8")
    Disk(tmp_path, model, 4)
