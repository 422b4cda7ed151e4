"""`Sample`: one question with its context and its answers, wherever it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """What is asked, and how the answer is judged.

    Attributes:
        task: its name in the tables.
        length: tokens that the prompt was made for; 0 if it came from a file.
        index: number within the task and length; in a file, of the line.
        message: the first user message, context and question.
        references: right answers to the last question; none: the dense model's answer, compared by F1.
        metric: a name in `metrics.METRICS`.
        max_tokens: of an answer.
        follow_ups: later messages; the last one's answer is judged.
        classes: labels to choose from, for `classification`.
        chat: whether the chat template is used.
        first_line: whether only the answer's first line is judged.
        middle_out: whether a prompt longer than the model's positions loses its middle; others are refused.
    """

    task: str
    length: int
    index: int
    message: str
    references: tuple[str, ...]
    metric: str
    max_tokens: int
    follow_ups: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    chat: bool = True
    first_line: bool = False
    middle_out: bool = False
