"""Prompts without answers, one a line: what the dense model says to them is what policies are held against.

A `.txt` has a prompt a line; a `.jsonl` an object a line, with the prompt in `prompt`, so that it may hold line breaks.
"""

from pathlib import Path

from ..errors import UsageError
from .lines import Line, raw_lines
from .samples import Sample

DENSE_TOKENS = 64  # of an answer
SUFFIXES = (".txt", ".jsonl")


def read_prompts(path: Path, limit: int | None = None) -> list[Sample]:
    """The prompts of a file, the first `limit` of them; their references are still to come from the dense model.

    Raises:
        UsageError: the file cannot be read, is of another kind, or has no prompts; or a line is malformed.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--data: with --reference dense expected a file that ends in .txt or .jsonl, got {path}")
    samples: list[Sample] = []
    for number, text in raw_lines(path):
        prompt = Line.of(path, number, text).text("prompt") if path.suffix == ".jsonl" else text.strip()
        if not prompt.strip():
            raise UsageError(f"--data: {path}, line {number}: holds no prompt; remove the line")
        samples.append(Sample(f"prompts/{path.stem}", 0, number, prompt, (), "f1", DENSE_TOKENS))
        if len(samples) == limit:
            break
    if not samples:
        raise UsageError(f"--data: {path} holds no prompts")
    return samples
