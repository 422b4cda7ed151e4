"""What tests of the commands share: a text, flags with which a tiny model leaves some of it behind, and a Ctrl-C."""

import signal

import pytest

TEXT = "The harbour of Ludmere has two lamps, and the keeper lights the green one first. " * 4
LAZY = ["--schedule", "2:0.5,4:0.2", "--min-tokens", "16", "--recent", "2", "--window", "2", "--round-to", "1"]


def interrupted_answer(monkeypatch: pytest.MonkeyPatch, after: int) -> list[str]:
    """Ctrl-C while this piece of `lazymlx generate`'s answer is written. Returns the pieces, as they come."""
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == after:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("lazymlx.cli.generate.write", write)
    return written
