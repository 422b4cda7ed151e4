"""A document read once and asked many times: questions come line by line, `undo` takes the newest one back.

python examples/chat_session.py [FILE]
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from lazymlx import Progress, Session, demo, load


def show(progress: Progress) -> None:
    print(f"\rreading: {progress.fraction:4.0%}", end="", file=sys.stderr, flush=True)


def main(document: str | Path, questions: Iterable[str]) -> Session:
    session = Session(*load(str(demo.MODEL)), step_size=512)
    session.read(document, on_progress=show)
    print(f"\r{session.stats.context_tokens} tokens read", file=sys.stderr)
    for line in questions:
        question = line.strip()
        if question == "undo":
            session.undo()
        elif question:
            for response in session.ask(question, max_tokens=80):
                print(response.text, end="", flush=True)
            stats = response.lazy
            print(f"\n[{stats.ttft_s:.2f} s to the first token, {stats.revived} tokens revived so far]", flush=True)
    return session


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo.document(), sys.stdin)
