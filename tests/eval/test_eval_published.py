"""Published test sets: their prompts and metrics, and what is said of a line that is not as it should be."""

import gzip
import json
from pathlib import Path

import pytest

from lazymlx.errors import UsageError
from lazymlx.eval.published import check_apart, read

LONGBENCH = {
    "input": "Who kept the key?",
    "context": "A {long} story.",
    "answers": ["Ruth", "Ruth K."],
    "length": 5000,
    "dataset": "hotpotqa",
    "language": "en",
    "all_classes": None,
    "_id": "1",
}
QA = {
    "question": "who got it",
    "answers": ["Ann"],
    "ctxs": [{"title": "T1", "text": "One."}, {"title": "T2", "text": "Two.", "isgold": True}],
}
KV = {"ordered_kv_records": [["k1", "v1"], ["k2", "v2"]], "key": "k2", "value": "v2"}
RULER = {"index": 0, "input": "Long text. Question?", "outputs": ["a1", "b2"], "length": 4000}


def written(path: Path, *entries: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{e if isinstance(e, str) else json.dumps(e)}\n" for e in entries), encoding="utf-8")
    return path


def test_longbench_has_its_prompt_metric_and_limit(tmp_path: Path) -> None:
    (sample,) = read(written(tmp_path / "a.jsonl", LONGBENCH))
    assert (sample.task, sample.metric, sample.max_tokens) == ("longbench/hotpotqa", "f1", 32)
    assert sample.references == ("Ruth", "Ruth K.")
    assert sample.message.startswith("Answer the question based on the given passages. Only give me the answer")
    assert "The following are given passages.\nA {long} story.\n\n" in sample.message
    assert sample.message.endswith("Question: Who kept the key?\nAnswer:")


def test_longbench_classification_knows_its_classes_and_judges_one_line(tmp_path: Path) -> None:
    entry = LONGBENCH | {"dataset": "trec_e", "all_classes": ["Human", "Place"]}
    (sample,) = read(written(tmp_path / "a.jsonl", entry))
    assert (sample.task, sample.classes, sample.first_line, sample.chat) == (
        "longbench/trec",
        ("Human", "Place"),
        True,
        False,
    )


def test_lost_in_the_middle_questions_and_keys(tmp_path: Path) -> None:
    (question,) = read(written(tmp_path / "qa.jsonl", QA))
    assert "\n\nDocument [1](Title: T1) One.\nDocument [2](Title: T2) Two.\n\nQuestion: who got it\nAnswer:" in (
        question.message
    )
    assert (question.metric, question.references) == ("subspan", ("Ann",))
    (pair,) = read(written(tmp_path / "kv.jsonl", KV))
    assert pair.message.endswith('JSON data:\n{"k1": "v1",\n "k2": "v2"}\n\nKey: "k2"\nCorresponding value:')
    assert (pair.task, pair.references) == ("lost-in-the-middle/kv-2", ("v2",))


def test_packed_files_are_read_and_limits_kept(tmp_path: Path) -> None:
    path = tmp_path / "kv.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join([json.dumps(KV)] * 5).encode()))
    assert [sample.index for sample in read(path, limit=3)] == [1, 2, 3]


def test_ruler_takes_its_task_from_the_path(tmp_path: Path) -> None:
    (needle,) = read(written(tmp_path / "niah_single_1" / "validation.jsonl", RULER | {"answer_prefix": " It is"}))
    assert (needle.task, needle.metric, needle.max_tokens) == ("ruler/niah_single_1", "listed", 128)
    assert needle.message == "Long text. Question? It is"
    (question,) = read(written(tmp_path / "qa_2.jsonl", RULER))
    assert (question.task, question.metric, question.max_tokens) == ("ruler/qa_2", "any", 32)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([LONGBENCH, "{'a': 1}"], "line 2: not JSON"),
        ([LONGBENCH, "[1]"], "line 2: expected an object, got a list"),
        ([LONGBENCH, "7"], "line 2: expected an object, got a number"),
        ([{k: v for k, v in LONGBENCH.items() if k != "answers"}], "line 1: field 'answers' is missing"),
        ([LONGBENCH | {"answers": []}], "line 1: field 'answers' is empty: there is no answer to compare with"),
        ([LONGBENCH | {"answers": "Ruth"}], "line 1: field 'answers' must be a list, got a string"),
        ([LONGBENCH | {"answers": [1]}], "line 1: field 'answers' must hold strings only"),
        ([LONGBENCH | {"context": None}], "line 1: field 'context' must be a string, got null"),
        ([LONGBENCH | {"dataset": "dureader"}], "line 1: field 'dataset' is 'dureader'; known are narrativeqa"),
        ([LONGBENCH | {"dataset": "trec"}], "line 1: field 'all_classes' must be a list, got null"),
        ([QA | {"ctxs": [{"title": "T"}]}], "line 1: field 'text' is missing"),
        ([QA | {"ctxs": ["T"]}], "line 1: field 'ctxs' must hold objects only"),
        ([KV | {"key": "k1"}], "line 1: field 'key' names no record with this 'value'"),
        ([KV | {"ordered_kv_records": [["k2"]]}], "line 1: field 'ordered_kv_records' must hold pairs"),
        ([RULER | {"outputs": []}], "line 1: field 'outputs' is empty"),
        ([{"a": 1, "b": 2}], "line 1: no known format has fields a, b: LongBench has dataset, context, input;"),
        ([], "has no lines, hence no questions and no answers"),
        ([RULER | {"outputs": ["", " "]}], "line 1: field 'outputs' holds empty strings only"),
        ([LONGBENCH | {"dataset": "trec", "all_classes": [1]}], "line 1: field 'all_classes' must hold strings only"),
        ([RULER, '{"input": "\\ud800", "outputs": ["a"]}'], "line 2: holds half of a surrogate pair"),
        ([RULER, "9" * 5000], "line 2: cannot be read as JSON"),
        (["[" * 200_000], "line 1: cannot be read as JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_field(entries: list, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "bad.jsonl", *entries)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read(tmp_path / "binary.jsonl")
    (tmp_path / "no.gz").write_bytes(b"plain")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "no.gz")
    packed = gzip.compress(json.dumps(RULER).encode() * 50)
    (tmp_path / "torn.gz").write_bytes(packed[:20] + b"\xff" * 20)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "torn.gz")


def test_two_files_of_one_task_are_refused(tmp_path: Path) -> None:
    """Their answers are told apart by task and line."""
    ours, theirs = (read(written(tmp_path / name, LONGBENCH)) for name in ("a.jsonl", "b.jsonl"))
    check_apart([*ours, *read(written(tmp_path / "c.jsonl", KV))])
    with pytest.raises(UsageError, match="two files hold line 1 of longbench/hotpotqa"):
        check_apart([*ours, *theirs])
