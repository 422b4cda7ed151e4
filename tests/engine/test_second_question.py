"""A second question is answered from what the first one left behind; without revival it cannot be."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from model_folder import HARD_MODEL
from talking import cache_of

from lazymlx import demo
from lazymlx.config import LazyConfig
from lazymlx.loading.load import load
from lazymlx.session.session import Session

pytestmark = pytest.mark.unchecked

PARAGRAPHS = (11, 1, 14)  # three that hold a fact each, about 600 tokens
ANSWERS = ("Pelusdra", "73916", "40718")
QUESTIONS = {entry["answer"]: entry["question"] for entry in demo.questions()}


def after_reading(revive: int, model: Path, schedule: str) -> Session:
    lazy = LazyConfig(schedule, revive=revive, min_tokens=0, round_to=1, recent=8)
    session = Session(*load(str(model)), lazy=lazy)
    paragraphs = demo.document().split("\n\n")
    session.read("\n\n".join(paragraphs[i] for i in PARAGRAPHS))
    return session


@cache
def asked_once(revive: int) -> Session:
    session = after_reading(revive, HARD_MODEL, "8:0.2")
    assert say(session, ANSWERS[0]) == ANSWERS[0]
    return session


def after_one_question(revive: int) -> Session:
    """A session with the 12-layer model, asked about the third paragraph, which left most of the others behind."""
    return asked_once(revive).fork()


def say(session: Session, answer: str) -> str:
    return "".join(response.text for response in session.ask(QUESTIONS[answer], 16)).strip()


def left_behind(session: Session, answer: str) -> int:
    """How many of the tokens that spell an answer in the document were not computed behind the cut."""
    depth = np.array(cache_of(session).aux.depth[: len(session.tokens)])
    spelled = [session.tokenizer.decode([token]) for token in session.tokens]
    ends = np.cumsum([len(piece) for piece in spelled])
    start = "".join(spelled).index(answer)
    return int((depth[np.searchsorted(ends, range(start, start + len(answer)), side="right")] == 1).sum())


@pytest.mark.parametrize("answer", ANSWERS[1:])
def test_a_second_question_brings_back_what_the_first_left_behind(answer):
    session = after_one_question(revive=7)
    assert left_behind(session, answer) > 0
    assert say(session, answer) == answer
    assert left_behind(session, answer) == 0


@pytest.mark.parametrize("answer", ANSWERS[1:])
def test_without_revival_it_is_lost(answer):
    session = after_one_question(revive=0)
    assert left_behind(session, answer) > 0
    assert say(session, answer) != answer
    assert left_behind(session, answer) > 0


def test_three_questions_in_turn_and_back():
    session = after_one_question(revive=7)
    assert [say(session, answer) for answer in ANSWERS[1:]] == list(ANSWERS[1:])
    session.undo()
    session.undo()
    assert [say(session, answer) for answer in ANSWERS[:0:-1]] == list(ANSWERS[:0:-1])


@pytest.mark.parametrize("revive", [7, 0])
def test_the_embedded_model_too_needs_revival(revive):
    session = after_reading(revive, demo.MODEL, "8:0.1")
    say(session, ANSWERS[0])
    assert left_behind(session, ANSWERS[1]) > 0
    assert (say(session, ANSWERS[1]) == ANSWERS[1]) == (revive > 0)
