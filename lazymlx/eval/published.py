"""Published test sets in their own formats, one JSON object a line: what a user has is read as it is.

- LongBench (arXiv 2308.14508): its prompts and limits are in `longbench.json`, taken from its repository (MIT).
- lost-in-the-middle (arXiv 2307.03172): multi-document QA and key-value retrieval, also as .jsonl.gz.
- RULER (arXiv 2404.06654): finished prompts in `input`, answers in `outputs`.

Which one a file is, its first line tells. A line that is not as it should be is named, with its field.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .lines import Line, raw_lines
from .samples import Sample

LONGBENCH = Path(__file__).parent / "longbench.json"
RULER_TOKENS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}  # its tokens_to_generate
QA = (
    "Write a high-quality answer for the given question using only the provided search results "
    "(some of which might be irrelevant).\n\n{results}\n\nQuestion: {question}\nAnswer:"
)
QA_TOKENS = KV_TOKENS = 100  # its max_new_tokens
KEY_VALUE = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\n"
    'JSON data:\n{{{pairs}}}\n\nKey: "{key}"\nCorresponding value:'
)


def read(path: Path, limit: int | None = None) -> list[Sample]:
    """The samples of a file, the first `limit` of them.

    Raises:
        UsageError: the file cannot be read, is in none of the formats, or has no answers; or a line is malformed.
    """
    samples: list[Sample] = []
    form: Format | None = None
    for line in (Line.of(path, number, text) for number, text in raw_lines(path) if text.strip()):
        form = form or _format(line)
        lacking = [field for field in form.fields if field not in line.fields]
        if lacking:
            raise line.error(f"field {lacking[0]!r} is missing; by its first line the file is {form.name}")
        samples.append(form.sample_of(line))
        if len(samples) == limit:
            break
    if not samples:
        raise UsageError(f"--data: {path} has no lines, hence no questions and no answers")
    return samples


def check_apart(samples: Sequence[Sample]) -> None:
    """Refuse two files whose answers could not be told apart.

    Raises:
        UsageError: they are of one task, and hold the same lines.
    """
    seen: set[tuple[str, int]] = set()
    for sample in samples:
        key = sample.task, sample.index
        if key in seen:
            raise UsageError(
                f"--data: two files hold line {sample.index} of {sample.task}; ask them in runs of their own, with "
                "another --out"
            )
        seen.add(key)


def longbench(line: Line) -> Sample:
    """A line of LongBench, or of LongBench-E."""
    dataset = line.text("dataset").removesuffix("_e")
    known = json.loads(LONGBENCH.read_text(encoding="utf-8"))
    if dataset not in known:
        raise line.error(
            f"field 'dataset' is {dataset!r}; known are {', '.join(known)} (the Chinese ones need a word segmenter)"
        )
    form = known[dataset]
    classes = line.texts("all_classes") if form["metric"] == "classification" else ()
    return Sample(
        task=f"longbench/{dataset}",
        length=0,
        index=line.number,
        message=form["prompt"].format(context=line.text("context"), input=line.text("input")),
        references=line.texts("answers"),
        metric=form["metric"],
        max_tokens=form["max_tokens"],
        classes=classes,
        chat=form["chat"],
        first_line=form["first_line"],
        middle_out=True,  # as its own script does it
    )


def multi_document(line: Line) -> Sample:
    """A line of lost-in-the-middle's question answering; the answer is one of these documents'."""
    entries = line.get("ctxs", list)
    if not all(isinstance(entry, dict) for entry in entries):
        raise line.error("field 'ctxs' must hold objects only")
    documents = [Line(line.path, line.number, entry) for entry in entries]
    results = "\n".join(
        f"Document [{k}](Title: {document.text('title')}) {document.text('text')}"
        for k, document in enumerate(documents, 1)
    )
    message = QA.format(results=results, question=line.text("question"))
    task = f"lost-in-the-middle/qa-{len(documents)}"
    return Sample(task, 0, line.number, message, line.texts("answers"), "subspan", QA_TOKENS)


def key_value(line: Line) -> Sample:
    """A line of lost-in-the-middle's key-value retrieval."""
    records, key, value = line.get("ordered_kv_records", list), line.text("key"), line.text("value")
    if not all(isinstance(record, list) and len(record) == 2 for record in records):
        raise line.error("field 'ordered_kv_records' must hold pairs of a key and a value")
    if [key, value] not in records:
        raise line.error("field 'key' names no record with this 'value'")
    pairs = ",\n ".join(f'"{k}": "{v}"' for k, v in records)
    message = KEY_VALUE.format(pairs=pairs, key=key)
    return Sample(f"lost-in-the-middle/kv-{len(records)}", 0, line.number, message, (value,), "any", KV_TOKENS)


def ruler(line: Line) -> Sample:
    """A line of RULER; the name of its file or folder tells which task it belongs to: niah_single_1, vt, qa_2, ..."""
    names = (line.path.name.split(".")[0], line.path.parent.name)
    task = next((name for name in names if name.split("_")[0] in RULER_TOKENS), "niah")
    family = task.split("_")[0]
    prefix = line.text("answer_prefix") if "answer_prefix" in line.fields else ""
    return Sample(
        task=f"ruler/{task}",
        length=0,
        index=line.number,
        message=line.text("input") + prefix,
        references=line.texts("outputs"),
        metric="any" if family == "qa" else "listed",
        max_tokens=RULER_TOKENS[family],
    )


class Format(NamedTuple):
    """A published form of test sets."""

    name: str
    fields: tuple[str, ...]  # that tell it from the others
    sample_of: Callable[[Line], Sample]


FORMATS = (
    Format("LongBench", ("dataset", "context", "input"), longbench),
    Format("lost-in-the-middle QA", ("question", "ctxs"), multi_document),
    Format("lost-in-the-middle key-value retrieval", ("ordered_kv_records",), key_value),
    Format("RULER", ("input", "outputs"), ruler),
)


def _format(line: Line) -> Format:
    for form in FORMATS:
        if all(field in line.fields for field in form.fields):
            return form
    forms = "; ".join(f"{form.name} has {', '.join(form.fields)}" for form in FORMATS)
    raise line.error(f"no known format has fields {', '.join(line.fields) or '(none)'}: {forms}")
