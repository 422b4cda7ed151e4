"""Sessions against the oracle, and against themselves: whatever a turn went through, no trace of it stays but its own.

"The same" means bit-equal: arrays of keys, values and hidden states, and the logits of what is said next.
"""

import threading
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from reference import SETTINGS, ReferenceLazyLLM
from talking import (
    DOCUMENT,
    FORGETFUL,
    LAZY,
    LOOKING,
    SHAPE,
    TEMPLATE,
    answer,
    cache_of,
    marks_of,
    session,
    speller,
    talker,
    weights,
)

from lazymlx.config import LazyConfig
from lazymlx.errors import Cancelled, DocumentError, PromptError, StateError, UsageError
from lazymlx.generation import check_request
from lazymlx.nn.attention import Attention
from lazymlx.prefill import template_tail
from lazymlx.progress import Meter
from lazymlx.session.saved import about
from lazymlx.session.session import Session

pytestmark = pytest.mark.unchecked

ALL = LazyConfig.paper("2:0.4,4:0.2")
DENSE = LazyConfig.dense()
QUESTION, OTHER = "who keeps it?", "where is he from?"


def state_of(session: Session) -> dict[str, np.ndarray]:
    """Everything that what is said next depends on, by position where a table says which."""
    cache = cache_of(session)
    assert len(session.tokens) == cache.offset
    state: dict[str, np.ndarray] = {"tokens": np.array(session.tokens), "offset": np.array(cache.offset)}
    for s, stage in enumerate(cache.stages):
        state[f"positions {s}"] = np.array(stage.positions[: stage.filled])
        for n, layer in enumerate(stage.layers if stage.filled else []):
            state[f"keys {s} {n}"] = np.array(layer.read(0, stage.filled)[0])
            state[f"values {s} {n}"] = np.array(layer.read(0, stage.filled)[1])
    depth = np.array(cache.aux.depth[: cache.offset])
    waiting = np.flatnonzero(depth < len(cache.stages))
    state["depth"] = depth
    if len(waiting):
        state["hidden"] = np.array(cache.aux.rows.at(cache.aux.slots[mx.array(waiting)]))
    if cache.queries is not None:
        state["queries"] = np.array(cache.queries)
    return state


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def read_session(lazy: LazyConfig = LAZY, **options) -> Session:
    s = session(lazy, **options)
    s.read(DOCUMENT)
    return s


# --- exactness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [LAZY, ALL, DENSE], ids=["default", "paper", "dense"])
def test_two_questions_are_the_oracle_s_sequence_of_steps(lazy):
    s = read_session(lazy)
    cuts = lazy.resolve(SHAPE.layers).cuts
    settings = {name: getattr(lazy, name) for name in SETTINGS}
    settings["recent"] += 1  # the chat template's tail, here "<assistant>"
    oracle = ReferenceLazyLLM(weights(), SHAPE, cuts, **settings)
    for question in (QUESTION, OTHER):
        fed = len(s.tokens) if s.messages else 0
        said = list(s.ask(question, 4))
        tokens = s.tokens[fed:]
        expected = [oracle.step(tokens[:-4]).logits]
        expected += [oracle.step([token], decode=True).logits for token in tokens[-4:]]
        for response, logits in zip(said, expected, strict=False):
            logprobs = logits - np.log(np.exp(logits).sum())
            np.testing.assert_allclose(np.array(response.logprobs), logprobs, atol=1e-3)
        for stage in range(len(cuts)):
            computed = np.flatnonzero(state_of(s)["depth"] > stage) if cuts else np.arange(len(s.tokens))
            assert frozenset(computed.tolist()) == oracle.computed(stage)


def test_reading_in_parts_and_at_once_give_the_same_answer():
    parts = session()
    for text in ("the key is kept.", "by an old man.", "who was born in a town."):
        parts.read(text)
    whole = session()
    whole.read("the key is kept.\n\nby an old man.\n\nwho was born in a town.")
    assert parts.tokens == whole.tokens
    (text, logprobs), (other, expected) = answer(parts, QUESTION), answer(whole, QUESTION)
    assert text == other
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)


def test_chunks_do_not_change_the_answer():
    (text, logprobs), (other, expected) = (answer(read_session(step_size=n), QUESTION) for n in (7, 2048))
    assert text == other
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)


def test_a_static_session_sees_a_document_that_was_read_before():
    static = LazyConfig("2:0.4", window=3, min_tokens=0, revive=0, round_to=1, sink=0, recent=0)
    s = read_session(static)
    list(s.ask(QUESTION, 1))
    assert s.stats.kept[0] > 0.4 * s.stats.prompt_end


def test_a_template_that_changes_earlier_turns_keeps_the_common_prefix():
    s = read_session(template=FORGETFUL)
    answer(s, QUESTION)
    held = s.tokens
    answer(s, OTHER)
    prompt = s.messages[:-1]
    rendered = speller(FORGETFUL).apply_chat_template(prompt, add_generation_prompt=True)
    assert held[: len(held) - 6] == rendered[: len(held) - 6]
    assert s.tokens[: len(rendered)] == rendered
    assert len(s.tokens) == s.stats.context_tokens == len(rendered) + 6


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"])
def test_a_template_that_fails_is_a_sentence(template):
    with pytest.raises(PromptError, match="^chat template: it failed: (ZeroDivision|Recursion)Error"):
        answer(session(template=template), QUESTION)


def test_a_prompt_of_tokens_is_no_affair_of_a_template_that_fails():
    assert template_tail(speller("{{ 1 / 0 }}"), [1, 2, 3]) == 0


@pytest.mark.parametrize("wrong", [2.5, float("nan"), "3", True, None, 0, -2])
def test_a_number_of_tokens_that_is_none_is_refused(wrong):
    with pytest.raises(UsageError, match=f"max_tokens: must be a whole number of at least 1.*, got {wrong!r}"):
        check_request(wrong, {})


@pytest.mark.parametrize(
    "limits", [{"max_memory": "1GB"}, {"max_memory": float("nan")}, {"max_memory": 0}, {"prefill_step_size": 2**31}]
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(UsageError, match=f"{next(iter(limits))}: must be a whole number"):
        check_request(1, limits)


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_half_a_surrogate_pair_is_a_sentence(template):
    with pytest.raises(PromptError, match="half a surrogate pair at character"):
        answer(session(template=template), "who \ud83d?")


def test_a_model_without_a_chat_template_reads_on():
    s = session(template=None, system="be brief.")
    s.read(DOCUMENT)
    answer(s, QUESTION)
    text, _ = answer(s, OTHER)
    assert speller(None).decode(s.tokens).endswith(f"Question: {OTHER}\n\n{text}")


def test_a_system_prompt_is_fed_once():
    s = read_session(system="be brief.")
    for question in (QUESTION, OTHER):
        before = len(s.tokens)
        said = list(s.ask(question, 6))
        assert len(s.tokens) == before + said[0].prompt_tokens + 6  # all that was fed is new
    assert speller().decode(s.tokens).count("be brief.") == 1


# --- going back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [LAZY, LOOKING, ALL, DENSE], ids=["default", "looking", "paper", "dense"])
def test_undo_returns_through_every_state(lazy):
    s, states, answers = session(lazy), [], []
    for question in (None, QUESTION, None, OTHER, QUESTION):
        states.append(state_of(s))
        answers.append(None if question else s.read(DOCUMENT))
        answers[-1] = answer(s, question) if question else None
    for question in (QUESTION, OTHER, None, QUESTION, None):
        assert s.undo() == question
        assert_same(state_of(s), states.pop())
        expected = answers.pop()
        if expected:
            text, logprobs = answer(s, question)
            assert text == expected[0]
            np.testing.assert_array_equal(logprobs, expected[1])
            s.undo()
    with pytest.raises(StateError, match="undo"):
        s.undo()


def test_retry_gives_the_same_answer_from_the_same_state():
    s = read_session()
    answer(s, QUESTION)
    text, logprobs = answer(s, OTHER)
    responses = list(s.retry(6))
    assert "".join(r.text for r in responses) == text
    np.testing.assert_array_equal(np.stack([np.array(r.logprobs) for r in responses]), logprobs)
    assert len(s.messages) == 4


def test_retry_needs_an_answer():
    with pytest.raises(StateError, match="retry"):
        next(read_session().retry())


def test_undo_after_a_template_changed_earlier_turns():
    s = read_session(template=FORGETFUL)
    answer(s, QUESTION)
    first = answer(s, OTHER)
    s.undo()
    np.testing.assert_array_equal(answer(s, OTHER)[1], first[1])
    assert [s.undo(), s.undo(), s.undo()] == [OTHER, QUESTION, None]
    assert s.messages == []


# A template that changes its mind late: it shortens every answer but the newest two.
LATE = TEMPLATE.replace(
    "m['content']",
    "(m['content'][2:] if m['role'] == 'assistant' and loop.index0 + 4 <= messages | length else m['content'])",
)


@pytest.mark.parametrize("lazy", [LAZY, LOOKING, ALL, DENSE], ids=["default", "looking", "paper", "dense"])
def test_undo_reaches_the_turns_before_those_that_a_template_cut_away(lazy):
    """Nothing brings back a turn that began behind the cut; what it took out of the aux cache is not lost with it."""
    s, questions = read_session(lazy, template=LATE), (QUESTION, OTHER, "who?", "what sea?", "is it far?")
    before, first = state_of(s), None
    for question in questions:
        said = answer(s, question)
        first = first or said
    assert [mark is None for mark in marks_of(s)] == [False, False, True, False, False, False]
    assert [s.undo() for _ in questions] == list(reversed(questions))
    assert_same(state_of(s), before)
    np.testing.assert_array_equal(answer(s, QUESTION)[1], first[1])


def test_forks_do_not_influence_one_another():
    s = read_session()
    answer(s, QUESTION)
    before, twin, alone = state_of(s), s.fork(), s.fork()
    for asked in (twin, s):
        texts = [answer(asked, question) for question in (OTHER, QUESTION)]
    assert_same(state_of(alone), before)
    for (text, logprobs), question in zip(texts, (OTHER, QUESTION), strict=True):
        other, expected = answer(alone, question)
        assert text == other
        np.testing.assert_array_equal(logprobs, expected)
    for asked in (s, alone):
        assert [asked.undo() for _ in range(3)] == [QUESTION, OTHER, QUESTION]
        assert asked.undo() is None


# --- interruptions --------------------------------------------------------------------------------


def reports_of(run) -> list:
    reports: list = []
    run(reports.append)
    return reports


@pytest.mark.parametrize("lazy", [LAZY, LOOKING, ALL, DENSE], ids=["default", "looking", "paper", "dense"])
def test_cancelling_at_every_report_leaves_no_trace(lazy):
    """`on_progress` returns False at the n-th report of a reading, of a first question, and of a follow-up."""
    s = session(lazy, step_size=16)
    for run in (
        lambda p: s.read(DOCUMENT, on_progress=p),
        lambda p: answer(s, QUESTION, on_progress=p),
        lambda p: answer(s, OTHER, on_progress=p),
    ):
        before, held, messages = state_of(s), s.nbytes, s.messages
        expected = reports_of(run)
        after = state_of(s)
        s.undo()
        assert len(expected) >= 3
        for n in range(len(expected)):
            reports: list = []
            with pytest.raises(Cancelled):
                run(lambda p, reports=reports, n=n: reports.append(p) or len(reports) <= n)
            assert len(reports) == n + 1
            assert_same(state_of(s), before)
            assert s.messages == messages
            # the aux cache's row for what does not count, and room for queries
            assert s.nbytes <= held + 128 + cache_of(s).prompt_queries.nbytes
        run(None)
        assert_same(state_of(s), after)


@pytest.mark.parametrize("lazy", [LAZY, LOOKING, ALL], ids=["default", "looking", "paper"])
def test_a_failure_in_any_layer_leaves_no_trace(lazy, monkeypatch):
    """The n-th run of a layer fails, in prefill or behind any token."""
    s = session(lazy, step_size=40)
    whole, calls = Attention.__call__, Counter()

    def failing(self, *args, **options):
        calls["layers"] += 1
        if calls["layers"] == calls["fails at"]:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    monkeypatch.setattr(Attention, "__call__", failing)
    for run in (lambda: s.read(DOCUMENT), lambda: answer(s, QUESTION, 2), lambda: answer(s, OTHER, 2)):
        before, messages = state_of(s), s.messages
        calls.clear()
        run()
        after, layers = state_of(s), calls["layers"]
        s.undo()
        for n in range(1, layers + 1):
            calls.clear()
            calls["fails at"] = n
            with pytest.raises(KeyboardInterrupt):
                run()
            assert_same(state_of(s), before)
            assert s.messages == messages
        calls.clear()
        run()
        assert_same(state_of(s), after)


@pytest.mark.parametrize("heard", [1, 2, 5])
def test_an_answer_that_is_not_heard_to_its_end_stays_as_far_as_it_was(heard):
    s, whole = read_session(), read_session()
    text, _ = answer(whole, QUESTION, heard)
    said = s.ask(QUESTION, 6)
    assert text.startswith("".join(next(said).text for _ in range(heard)))
    said.close()
    assert_same(state_of(s), state_of(whole))
    assert s.messages == whole.messages
    np.testing.assert_array_equal(answer(s, OTHER)[1], answer(whole, OTHER)[1])


@pytest.mark.parametrize("heard", [1, 3])
def test_cancel_ends_an_answer_within_a_token(heard):
    s = read_session()
    responses = []
    for response in s.ask(QUESTION, 100):
        responses.append(response)
        if len(responses) == heard:
            s.cancel()
    assert len(responses) == heard + 1
    assert responses[-1].finish_reason == "cancelled"
    assert s.messages[-1]["content"].startswith("".join(r.text for r in responses))
    assert answer(s, OTHER)[0]


def test_cancel_from_another_thread_ends_a_reading():
    s = session(step_size=4)
    reached, cancelled = threading.Event(), threading.Event()

    def stop() -> None:
        reached.wait(10)
        s.cancel()
        cancelled.set()

    def on_progress(progress):
        if progress.processed > 20:
            reached.set()
            cancelled.wait(10)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Cancelled):
        s.read(DOCUMENT, on_progress)
    stopper.join()
    s.read(DOCUMENT)
    assert_same(state_of(s), state_of(read_session(step_size=4)))


# --- threads --------------------------------------------------------------------------------------


def test_a_session_serves_one_at_a_time_and_says_so():
    s = read_session()
    said = s.ask(QUESTION)
    next(said)
    for use in (lambda: s.read("a"), lambda: next(s.ask("b")), s.undo, s.fork, lambda: s.stats):
        with pytest.raises(StateError, match="in use"):
            use()
    said.close()
    assert answer(s, OTHER)[0]


def test_several_sessions_share_a_model_in_several_threads():
    model, expected = talker(), answer(read_session(), QUESTION)
    results = {}

    def talk(n: int) -> None:
        s = Session(model, speller())
        s.read(DOCUMENT)
        results[n] = answer(s, QUESTION)

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text, logprobs in results.values():
        assert text == expected[0]
        np.testing.assert_array_equal(logprobs, expected[1])
    assert len(results) == 3


def test_a_session_may_go_from_thread_to_thread():
    s, expected = session(), answer(read_session(), QUESTION)
    results = []
    for use in (lambda: s.read(DOCUMENT), lambda: results.append(answer(s, QUESTION))):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(results[0][1], expected[1])
    answer(s, OTHER)
    s.undo()


def test_a_closed_session_holds_nothing_and_says_so():
    s = read_session()
    said = s.ask(QUESTION, 50)
    next(said)
    s.close()  # in the middle of an answer, as when a window is closed
    assert [r.finish_reason for r in said] == ["cancelled"]
    assert s.nbytes == session().nbytes
    with pytest.raises(StateError, match="closed"):
        s.read("a")
    with read_session() as other:
        answer(other, QUESTION)
    with pytest.raises(StateError, match="closed"):
        next(other.ask(QUESTION))


# --- cost -----------------------------------------------------------------------------------------


def test_fifty_turns_compute_each_token_once_and_grow_linearly(monkeypatch):
    rows, whole, sizes = Counter(), Attention.__call__, []
    s = read_session(LazyConfig("2:0.4,4:0.2", window=3, min_tokens=0, round_to=4, revive=None))
    layer_of = {id(layer.self_attn): n for n, layer in enumerate(s.model.layers)}

    def counting(self, x, *args, **options):
        rows[layer_of[id(self)]] += x.shape[1]
        return whole(self, x, *args, **options)

    monkeypatch.setattr(Attention, "__call__", counting)
    for turn in range(50):
        list(s.ask("abcde"[turn % 5], 2))
        sizes.append(s.nbytes)
    read = len(speller().encode(DOCUMENT))
    assert read <= len(s.tokens) - rows[0] <= read + 10  # stage 0: everything but what was read before
    for layer in range(1, SHAPE.layers):
        assert rows[layer] <= len(s.tokens)
    first, second = sizes[24] - sizes[0], sizes[49] - sizes[24]
    assert second < 1.5 * first + 300_000


def test_what_undoing_takes_is_small():
    s = read_session()
    for _ in range(10):
        answer(s, QUESTION)
    assert s.nbytes - cache_of(s).nbytes <= len(s.tokens) * 32 * 4 * len(cache_of(s).stages)


# --- progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [LAZY, ALL, DENSE], ids=["default", "paper", "dense"])
def test_progress_rises_to_the_total_through_all_stages(lazy):
    s = session(lazy, step_size=16)
    at = 0
    for run in (lambda p: s.read(DOCUMENT, p), lambda p: answer(s, QUESTION, on_progress=p)):
        reports = reports_of(run)
        processed = [p.processed for p in reports]
        assert processed == sorted(processed)
        assert {p.cache for p in reports} == {at}
        assert processed[0] == at and processed[-1] == reports[-1].total
        assert len({p.total for p in reports}) == 1
        assert len(set(processed)) > 2
        assert [p.time_ms for p in reports] == sorted(p.time_ms for p in reports)
        assert reports[-1].fraction == 1.0
        at = reports[-1].total


def test_progress_moves_within_a_chunk_and_what_is_cancelled_there_is_read_to_the_chunks_end(monkeypatch):
    monkeypatch.setattr("lazymlx.nn.loop.IN_HAND_CPU", 1)  # the chunk is short, and has few layers
    s, whole = session(DENSE, step_size=64), read_session(DENSE, step_size=64)
    processed = [p.processed for p in reports_of(lambda p: s.read(DOCUMENT, p))]
    assert 0 < processed[1] < processed[2] < 64
    assert max(np.diff(processed)) < 64
    s.undo()
    heard: list = []
    with pytest.raises(Cancelled):
        s.read(DOCUMENT, lambda p: heard.append(p) or len(heard) < 2, resumable=True)
    assert [p.processed for p in heard] == processed[:2]
    heard.clear()
    s.read(DOCUMENT, heard.append)
    assert heard[0].cache == 64
    assert_same(state_of(s), state_of(whole))


def test_progress_moves_on_in_every_stage():
    reports: list = []
    meter = Meter(reports.append, 10, 100, [50, 30, 20])
    for stage in range(3):
        meter.report(stage, 0, 8)
        meter.report(stage, 4, 8)
    meter.report(0, 8, 8)  # what was behind does not bring it back
    meter.finish()
    assert [report.processed for report in reports] == [10, 35, 60, 75, 90, 100, 100, 110]
    assert list(reports[0].to_dict()) == ["total", "cache", "processed", "time_ms"]


# --- what cannot be read or asked -----------------------------------------------------------------


def test_documents_come_as_text_or_as_paths(tmp_path):
    file, empty = tmp_path / "book.txt", tmp_path / "empty"
    empty.mkdir()
    file.write_text(DOCUMENT, encoding="utf-8")
    s = session()
    s.read(file)
    assert_same(state_of(s), state_of(read_session()))
    for wrong, message in (
        (str(file), "pass a Path"),
        (tmp_path / "none.txt", "cannot be read"),
        (empty, "a folder without documents"),
        ("  \n", "empty"),
    ):
        with pytest.raises(PromptError, match=message):
            s.read(wrong)
    s.read("no name of a file is so long. " * 9)
    s.undo()
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="UTF-8"):
        s.read(Path(tmp_path / "image"))
    assert_same(state_of(s), state_of(read_session()))


def test_an_empty_question_is_refused():
    with pytest.raises(PromptError, match="question"):
        next(read_session().ask(" "))


def test_a_template_s_refusal_is_a_sentence():
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}<bos>"
    with pytest.raises(PromptError, match="no system role"):
        session(template=strict, system="be brief.").read(DOCUMENT)


def test_nothing_is_left_on_the_device():
    mx.clear_cache()
    before = mx.get_active_memory()
    s = read_session()
    answer(s, QUESTION)
    s.close()
    del s
    mx.clear_cache()
    assert mx.get_active_memory() - before < 100_000  # the model itself, which other tests may hold


# --- requests that come to nothing ------------------------------------------------------------------


def test_a_retry_that_makes_no_sense_keeps_the_old_answer():
    s = read_session()
    answer(s, QUESTION)
    before, messages = state_of(s), s.messages
    for options in ({"max_tokens": 0}, {"draft_model": talker()}):
        with pytest.raises(UsageError):
            list(s.retry(**options))
        assert s.messages == messages
        assert_same(state_of(s), before)
    assert list(s.retry(6))


def test_how_things_are_kept_is_not_changed_by_a_turn_that_was_cancelled():
    s = read_session()
    config = s.config
    with pytest.raises(Cancelled):
        answer(s, QUESTION, quantized_kv_start=10_000, on_progress=lambda _: False)
    assert s.config == config


def test_hidden_states_that_were_packed_come_back_from_a_file(tmp_path):
    s = read_session()
    answer(s, QUESTION, aux_bits=8, kv_group_size=32)
    with pytest.raises(StateError, match="hidden states are kept in 8 bits"):
        answer(s, OTHER, aux_bits=4, kv_group_size=32)
    s.save(tmp_path / "saved")
    opened = Session.open(tmp_path / "saved", s.model, s.tokenizer)
    assert opened.config == s.config
    np.testing.assert_allclose(answer(opened, OTHER)[1], answer(s, OTHER)[1], atol=1e-4)


def test_a_cancelled_reading_goes_on_where_it_was_left():
    """Whatever was cancelled how often, and in whichever order with other things, no trace of it stays."""
    s, whole = session(step_size=16), read_session(step_size=16)
    before, after, watched = state_of(s), state_of(whole), []

    def stop_at(report: int, text: str = DOCUMENT) -> int:
        """Cancel at so many reports; returns the tokens that this reading began with."""
        reports: list = []
        with pytest.raises(Cancelled):
            s.read(text, lambda p: reports.append(p) or len(reports) <= report, resumable=True)
        assert_same(state_of(s), before)
        return reports[0].cache

    assert stop_at(0) == stop_at(2) == 0
    assert stop_at(1) == 48  # the chunk behind the last report was under way
    assert stop_at(0) == 80
    s.read(DOCUMENT, watched.append)
    assert watched[0].cache == 80
    assert_same(state_of(s), after)
    s.undo()
    assert stop_at(2) == 0 and stop_at(1, DOCUMENT[::-1]) == 0  # another document is read from its beginning
    s.read(DOCUMENT)
    assert_same(state_of(s), after)
    assert answer(s, QUESTION)[0] == answer(whole, QUESTION)[0]
    assert_same(state_of(s), state_of(whole))


def test_what_was_said_of_a_saved_session_is_read_without_its_model(tmp_path: Path):
    s = read_session()
    s.save(tmp_path / "plain")
    s.save(tmp_path / "said", {"model": "org/name", "documents": [["book", 7]]})
    assert about(tmp_path / "plain") == {} and about(tmp_path / "said")["documents"] == [["book", 7]]
    halved = talker()
    halved.set_dtype(mx.float16)
    with pytest.raises(DocumentError, match="another model, org/name; open it with that one"):
        Session.open(tmp_path / "said", halved, speller())
    (tmp_path / "text").write_text("no document")
    with pytest.raises(DocumentError, match="is no saved document"):
        about(tmp_path / "text")
