"""Generated tasks: what is asked for is in the context, lengths are met, seeds reproduce."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from lazymlx.demo import MODEL
from lazymlx.errors import UsageError
from lazymlx.eval.encoding import Encoder
from lazymlx.eval.passages import passages
from lazymlx.eval.prose import FACTS, QUOTE_TOKENS
from lazymlx.eval.samples import Sample
from lazymlx.eval.tasks import LEAST_LENGTH, TASKS, check_lengths, check_tasks, make

LOOKED_UP = Path(__file__).parents[1] / "data" / "passages.txt"
LENGTHS = (LEAST_LENGTH, 700)


@pytest.fixture(scope="module")
def tokenizer() -> TokenizerWrapper:
    return load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def encoder(tokenizer: TokenizerWrapper) -> Encoder:
    return Encoder(tokenizer)


def parts(sample: Sample) -> tuple[str, str]:
    context, question = sample.message.rsplit("\n\nQuestion: ", 1)
    return context, question


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_lengths_are_met_within_a_few_tokens(task: str, length: int, encoder: Encoder) -> None:
    for index in range(3):
        tokens = encoder.prompt(make(task, length, index, 0, encoder).message).tokens
        assert -2 <= len(tokens) - length <= 12


def test_a_sample_depends_on_seed_task_length_and_index_alone(encoder: Encoder) -> None:
    first = make("facts", 400, 3, 7, encoder)
    assert make("facts", 400, 3, 7, Encoder(encoder.tokenizer)) == first
    assert len({make("facts", 400, i, s, encoder).message for i in (3, 4) for s in (7, 8)}) == 4


@pytest.mark.parametrize("task", ["facts", "multikey", "followup"])
def test_the_needle_is_in_the_context_with_its_answer(task: str, encoder: Encoder) -> None:
    for index in range(8):
        sample = make(task, 500, index, 0, encoder)
        context, question = parts(sample)
        asked = sample.follow_ups[-1].removeprefix("Question: ") if sample.follow_ups else question
        statements = [
            said.format(a=found[1], v=sample.references[0])
            for said, form in FACTS
            if (found := re.fullmatch(re.escape(form).replace(r"\{a\}", "(.+)"), asked))
        ]
        assert len(statements) == 1
        assert context.count(statements[0]) == 1


def test_needles_stand_at_all_depths(encoder: Encoder) -> None:
    depths = []
    for index in range(30):
        sample = make("facts", LEAST_LENGTH, index, 0, encoder)
        depths.append(parts(sample)[0].index(sample.references[0]) / len(sample.message))
    assert min(depths) < 0.25 and max(depths) > 0.65


def test_other_keys_have_facts_of_the_same_form(encoder: Encoder) -> None:
    context, question = parts(make("multikey", 700, 0, 0, encoder))
    said = next(said for said, form in FACTS if re.fullmatch(re.escape(form).replace(r"\{a\}", ".+"), question))
    assert len(re.findall(re.escape(said).replace(r"\{a\}", "[A-Z][a-z]+").replace(r"\{v\}", "[^.]+"), context)) == 8


def test_a_follow_up_needs_what_the_first_question_did_not(encoder: Encoder) -> None:
    sample = make("followup", 600, 0, 0, encoder)
    assert parts(sample)[1] not in sample.follow_ups[0]
    follow_up = encoder.follow_up(sample.follow_ups[0]).tokens
    assert encoder.tokenizer.decode(follow_up) == f"<|end|><|user|>\n{sample.follow_ups[0]}<|assistant|>"


def test_key_value_pairs(encoder: Encoder) -> None:
    sample = make("kv", 500, 0, 0, encoder)
    context, question = parts(sample)
    pairs = dict(re.findall(r'"(\w+)": "(\w+)",\n', context))
    assert context.startswith('JSON data:\n{"') and len(pairs) > 10
    assert pairs[re.search(r'"(\w+)"', question)[1]] == sample.references[0]


@pytest.mark.parametrize("task", ["variables", "chains"])
def test_assignments_lead_to_the_answer(task: str, encoder: Encoder) -> None:
    hops = []
    for index in range(8):
        sample = make(task, 500, index, 0, encoder)
        context, question = parts(sample)
        values = dict(re.findall(r"^(\w+) = (.+)$", context, re.MULTILINE))
        value, steps = re.fullmatch(r"print\((\w+)\)", question)[1], -1
        while value in values:
            value, steps = values[value], steps + 1
        assert value.strip('"') == sample.references[0]
        hops.append(steps)
    assert min(hops) >= (task == "chains")


def test_the_blank_is_filled_by_the_text(encoder: Encoder) -> None:
    sample = make("cloze", 500, 1, 0, encoder)
    context, question = parts(sample)
    left, right = question.removeprefix("Fill in the blank: ").split(" ____ ")
    assert f"{left} {sample.references[0]} {right}" in context


def test_a_quotation_goes_on_after_its_cue_for_longer_than_an_answer_may_be(encoder: Encoder) -> None:
    sample = make("quote", 500, 1, 0, encoder)
    context, question = parts(sample)
    cue = question.removeprefix("Continue the text after: ")
    assert f"{cue} {sample.references[0]}" in context
    assert encoder.words(sample.references[0]) >= QUOTE_TOKENS == sample.max_tokens


def test_titles_are_those_of_the_documents_and_few(encoder: Encoder) -> None:
    for length in (LEAST_LENGTH, 1500, 5000):
        sample = make("titles", length, 0, 0, encoder)
        heads = re.findall(r"Document (\[\d+\]) \(Title: (.+?)\)", sample.message)
        assert list(sample.references) == [f"{number} {title}" for number, title in heads]
        assert 1 <= len(heads) <= 14


def test_labels_can_be_told_from_the_examples(encoder: Encoder) -> None:
    sample = make("labels", 500, 0, 0, encoder)
    context, question = parts(sample)
    examples = re.findall(r"Text: (.+)\nLabel: (\w+)", context)
    shared = [
        label for text, label in examples if set(text.split()) & set(question.split()) and label in sample.references
    ]
    assert shared


def test_a_model_without_a_chat_template_is_asked_in_plain_text(tokenizer: TokenizerWrapper) -> None:
    plain = load_tokenizer(MODEL, {"chat_template": None})
    plain.has_chat_template = False
    encoder = Encoder(plain)
    sample = make("followup", 400, 0, 0, encoder)
    text = plain.decode(encoder.prompt(sample.message).tokens)
    assert sample.message in text and text.endswith("?\n\nAnswer:")
    assert plain.decode(encoder.follow_up(sample.follow_ups[0]).tokens).endswith("?\n\nAnswer:")


def test_the_middle_of_a_long_file_prompt_is_left_out(encoder: Encoder) -> None:
    words = " ".join(str(number) for number in range(200))
    whole = encoder.prompt(words).tokens
    assert encoder.prompt(words, most=51).tokens == whole[:25] + whole[-26:]


def test_the_passages_are_no_training_text() -> None:
    """Each was looked up in the text that the embedded model was trained on, which is too large to be kept here: no run
    of twelve tokens from its start occurs there. A passage that is new or changed is to be looked up, then listed."""
    listed = LOOKED_UP.read_text(encoding="utf-8").splitlines()
    assert [f"{sha256(p.text.encode()).hexdigest()[:16]} {p.title}" for p in passages()] == listed


def test_unknown_tasks_and_too_short_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="no task 'fact'; tasks are facts, multikey"):
        check_tasks(["fact"])
    with pytest.raises(UsageError, match=f"at least {LEAST_LENGTH} tokens, got 100"):
        check_lengths([100])
