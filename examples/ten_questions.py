"""Ten questions about a PDF that is read once.

python examples/ten_questions.py FILE.pdf [MODEL]     a folder or a Hub name; the embedded model knows its essay alone
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from lazymlx import Session, demo, load

QUESTIONS = (
    "What is this document about?",
    "Who wrote it?",
    "When was it written?",
    "Which problem does it address?",
    "What is its main result?",
    "Which figures support it?",
    "What are its limits?",
    "Which terms does it define?",
    "What does it recommend?",
    "What remains open?",
)


def main(pdf: Path, questions: Sequence[str] = QUESTIONS, model: str = str(demo.MODEL)) -> list[str]:
    session = Session(*load(model))
    session.read(pdf)  # its text goes through the first layers, whatever will be asked
    answers = []
    for question in questions:
        responses = list(session.ask(question, max_tokens=100))
        answers.append("".join(response.text for response in responses).strip())
        print(f"{question}\n  {answers[-1]}\n  ({responses[-1].ttft_s:.2f} s to the first token)\n", flush=True)
        session.undo()  # each question is about the document alone, not about earlier answers
    return answers


if __name__ == "__main__":
    main(Path(sys.argv[1]), model=sys.argv[2] if len(sys.argv) > 2 else str(demo.MODEL))
