"""Published test sets in their own formats, one JSON object a line: what a user has is read as it is.

- LongBench (arXiv 2308.14508): its prompts and limits are in `longbench.json`, taken from its repository (MIT).
- lost-in-the-middle (arXiv 2307.03172): multi-document QA and key-value retrieval, also as .jsonl.gz.
- RULER (arXiv 2404.06654): finished prompts in `input`, answers in `outputs`.

Which one a file is, its first line tells. A line that is not as it should be is named, with its field.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
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


class Line:
    """One line of a file: its fields, or an error that names them."""

    def __init__(self, path: Path, number: int, fields: dict[str, Any]):
        self.path, self.number, self.fields = path, number, fields

    def error(self, what: str) -> UsageError:
        return UsageError(f"--data: {self.path}, line {self.number}: {what}")

    def get(self, name: str, kind: type) -> Any:
        """A field that must be there and of this type."""
        if name not in self.fields:
            raise self.error(f"field {name!r} is missing")
        value = self.fields[name]
        if not isinstance(value, kind):
            raise self.error(f"field {name!r} must be {NAMES[kind]}, got {NAMES.get(type(value), str(value))}")
        return value

    def text(self, name: str) -> str:
        return self.get(name, str)

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of strings, at least one."""
        values = self.get(name, list)
        if not values:
            raise self.error(f"field {name!r} is empty: there is no answer to compare with")
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"field {name!r} must hold strings only")
        if not any(value.strip() for value in values):
            raise self.error(f"field {name!r} holds empty strings only: there is no answer to compare with")
        return tuple(values)


NAMES = {str: "a string", list: "a list", dict: "an object", int: "a number", bool: "true or false", type(None): "null"}


def read(path: Path, limit: int | None = None) -> list[Sample]:
    """The samples of a file, the first `limit` of them.

    Raises:
        UsageError: the file cannot be read, is in none of the formats, or has no answers; or a line is malformed.
    """
    samples: list[Sample] = []
    form: Format | None = None
    for line in _lines(path):
        form = form or _format(line)
        lacking = [field for field in form.fields if field not in line.fields]
        if lacking:
            raise line.error(f"field {lacking[0]!r} is missing; by its first line the file is {form.name}")
        samples.append(form.reader(line))
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


def _lines(path: Path) -> Iterator[Line]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield _line(path, number, text)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"--data: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--data: {path} is not UTF-8 text: {error.reason}") from None


def _line(path: Path, number: int, text: str) -> Line:
    try:
        fields = json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        why = error.msg.removesuffix(" at")
        raise UsageError(f"--data: {path}, line {number}: not JSON: {why} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
        raise UsageError(f"--data: {path}, line {number}: cannot be read as JSON: {error}") from None
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UsageError(f"--data: {path}, line {number}: holds half of a surrogate pair, which is no text") from None
    if not isinstance(fields, dict):
        raise UsageError(
            f"--data: {path}, line {number}: expected an object, got {NAMES.get(type(fields), 'a number')}"
        )
    return Line(path, number, fields)


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
    reader: Callable[[Line], Sample]


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
