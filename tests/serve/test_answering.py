"""One request after the other, without a socket: what is reused, what is kept, what is never left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving import Answers

from lazymlx import LazyConfig, load
from lazymlx.errors import Cancelled, TooLargeError
from lazymlx.generation import generate
from lazymlx.progress import Progress
from lazymlx.serve.answer import Piece
from lazymlx.serve.answering import PART
from lazymlx.serve.conversations import Conversations
from lazymlx.serve.request import Chat, Request

CUTS = LazyConfig("2:0.3,4:0.2", min_tokens=0)
TEXT = "The keeper lights the green lamp before the harbour is dark. " * 110  # longer than two parts


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path):
    return load(str(tiny_model_folder), CUTS)


@pytest.fixture
def answers(loaded) -> Answers:
    return Answers(*loaded)


def asked(*texts: str, system: str = "", **options) -> Request:
    roles = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    setting = [{"role": "system", "content": system}] if system else []
    return Request(Chat((*setting, *roles)), **{"max_tokens": 8, "temperature": 0, **options})


def said(told: list) -> str:
    return "".join(piece.text for piece in told if isinstance(piece, Piece))


def leaves_at(share: float) -> Callable:
    """A client that goes away when so much of its prompt has been read."""
    return lambda what: isinstance(what, Progress) and what.fraction >= share


def test_a_prompt_read_in_parts_is_answered_as_one_read_at_once(loaded, answers: Answers) -> None:
    request = asked(TEXT)
    tokens = answers.encoder.encode(request).tokens
    assert len(tokens) > 2 * PART
    assert said(answers.to(request)) == generate(*loaded, tokens, max_tokens=8, prefill_step_size=64)


def test_what_a_cancelled_request_read_is_kept_for_its_retry(answers: Answers) -> None:
    request = asked(TEXT, progress=True)
    with pytest.raises(Cancelled):
        answers.to(request, leaves=leaves_at(0.5))
    again = answers.to(request)
    usage = again[-1].end.usage
    assert usage.cached_tokens >= PART and usage.cached_tokens % PART == 0
    assert said(again) == said(Answers(answers.model, answers.tokenizer).to(request))


def test_progress_never_goes_back_and_ends_at_the_whole(answers: Answers) -> None:
    told = [what.processed for what in answers.to(asked(TEXT, progress=True)) if isinstance(what, Progress)]
    assert told == sorted(told) and told[-1] == len(answers.encoder.encode(asked(TEXT)).tokens)
    assert len(told) > 10


def test_an_answer_that_is_cancelled_ends_at_the_next_token(answers: Answers) -> None:
    with pytest.raises(Cancelled, match="after 2 tokens"):
        answers.to(asked("Go on.", max_tokens=500), leaves=lambda what: isinstance(what, Piece))
    assert answers.to(asked("Go on."))[-1].end.usage.cached_tokens > 0


def test_system_messages_are_never_left_behind(answers: Answers) -> None:
    request = asked(TEXT, system="Answer as the keeper of the light would, in few words. " * 10)
    answers.to(request)
    [kept] = answers.conversations.kept
    head, depth = answers.encoder.encode(request).head, np.array(kept.cache.aux.depth)
    assert head > 100 and (depth[:head] == len(kept.cache.stages)).all()
    assert (depth[head : 2 * head] < len(kept.cache.stages)).any()


def test_without_system_messages_there_is_no_head(answers: Answers) -> None:
    assert answers.encoder.encode(asked("Who?")).head == 0


def test_others_make_room_and_what_fits_alone_never_is_refused(loaded, answers: Answers) -> None:
    answers.to(asked(TEXT))
    taken = answers.conversations.nbytes
    weights = sum(w.nbytes for w in answers.weights)
    small = Answers(*loaded, max_memory=weights + 2 * taken, conversations=answers.conversations)
    small.to(asked("Another one: " + TEXT))
    assert len(answers.conversations.kept) == 1
    with pytest.raises(TooLargeError):
        Answers(*loaded, max_memory=weights + 1000).to(asked(TEXT))


# --- moved texts ----------------------------------------------------------------------------------------


def tale(length: int, seed: int) -> str:
    """A text that repeats nothing."""
    words = "lamp harbour keeper green storm tide rope bell mast cliff gull anchor sand light fog oar".split()
    return " ".join(np.random.default_rng(seed).choice(words, size=length))


@pytest.fixture
def moving(loaded) -> Answers:
    return Answers(*loaded, conversations=Conversations(loaded[0], 4, again=0.1))


def test_a_text_read_before_in_another_place_is_taken_over_but_for_its_beginning(moving: Answers) -> None:
    document = tale(600, 1)
    size = len(moving.encoder.encode(asked(document)).tokens)
    moving.to(asked(document + "\nWho keeps the lamp?"))
    for before in ("Here it is again: ", tale(40, 2)):
        usage = moving.to(asked(before + document + "\nWhat is green?"))[-1].end.usage
        assert 0.75 * size < usage.cached_tokens <= 0.9 * size
    again = moving.to(asked("Hm.", "Yes?", document + "\nAnd now?"))
    assert again[-1].end.usage.cached_tokens > 0.75 * size


def test_a_text_that_comes_twice_in_a_conversation_is_read_once(moving: Answers) -> None:
    document = tale(600, 1)
    first = moving.to(asked(document))[-1].end.usage
    second = moving.to(asked(document, "A tale.", document + " Well?"))[-1].end.usage
    assert second.cached_tokens > 1.7 * first.prompt_tokens


def test_where_nothing_moved_answers_are_those_of_a_server_that_moves_nothing(
    answers: Answers, moving: Answers
) -> None:
    for text in (tale(600, 1), tale(600, 2), tale(600, 1) + " Who?"):
        told = [each.to(asked(text)) for each in (answers, moving)]
        assert said(told[0]) == said(told[1])
        assert told[0][-1].end.usage.cached_tokens == told[1][-1].end.usage.cached_tokens


def test_answers_are_never_taken_over(moving: Answers) -> None:
    told = moving.to(asked("Tell me a tale.", max_tokens=400))
    moving.to(asked("Is this yours? " + said(told)))
    [first, _] = moving.conversations.kept
    assert (first.lent >= 0).sum() == told[-1].end.usage.prompt_tokens
