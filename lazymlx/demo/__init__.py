"""The embedded model, a document to read to it, and questions about the document with their answers."""

import json
from pathlib import Path
from typing import TypedDict

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model"


class Question(TypedDict):
    """One entry of questions.json."""

    question: str
    answer: str
    kind: str


def document() -> str:
    """An essay of about 3,000 tokens with a few invented facts in it."""
    return (FOLDER / "document.txt").read_text(encoding="utf-8")


def questions() -> list[Question]:
    """Questions about `document()`."""
    return json.loads((FOLDER / "questions.json").read_text(encoding="utf-8"))
