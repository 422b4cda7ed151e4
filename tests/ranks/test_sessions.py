"""Sessions on several ranks beside one: documents that go from one number of ranks to another, and who decides."""

from pathlib import Path

import pytest
from commands import TEXT
from model_folder import write_model
from together import together

from lazymlx.config import LazyConfig
from lazymlx.errors import ModelError, PromptError
from lazymlx.loading.load import load
from lazymlx.ranks.group import ALONE, Ranks
from lazymlx.session.saved import model_fingerprint
from lazymlx.session.session import Session

LAZY = LazyConfig("2:0.5,4:0.2", min_tokens=16, recent=2, window=2, round_to=1, pool=3)
NUMBERS = (1, 2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with as many key heads as ranks at most, each as large as packed queries want them."""
    return write_model(tmp_path_factory.mktemp("ranks") / "four", num_key_value_heads=4, head_dim=64)


def on_ranks(size: int, monkeypatch: pytest.MonkeyPatch, run) -> list:
    return [run(ALONE)] if size == 1 else together(size, monkeypatch, run)


def answer(session: Session, question: str) -> list[int]:
    return [response.token for response in session.ask(question, max_tokens=4)]


def test_a_document_goes_from_any_number_of_ranks_to_any(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    """What was said before, what is said after, and what the file says of the model."""

    def saved(ranks: Ranks) -> list:
        session = Session(*load(str(folder), LAZY, ranks=ranks))
        session.read(TEXT)
        first = answer(session, "Who?")
        undone = answer(session, "Where?")
        session.undo()
        session.save(tmp_path / f"{ranks.size}.lazydoc" if ranks.rank == 0 else "/nowhere")
        return [first, undone, answer(session, "When?"), session.stats.computed, model_fingerprint(session.model)]

    def opened(ranks: Ranks) -> list:
        model, tokenizer = load(str(folder), LAZY, ranks=ranks)
        paths = [tmp_path / f"{size}.lazydoc" if ranks.rank == 0 else "/nowhere" for size in NUMBERS]
        sessions = [Session.open(path, model, tokenizer) for path in paths]
        return [[answer(session, "When?"), session.stats.computed] for session in sessions]

    before = [found for size in NUMBERS for found in on_ranks(size, monkeypatch, saved)]
    assert all(found == before[0] for found in before)
    after = [found for size in NUMBERS for found in on_ranks(size, monkeypatch, opened)]
    assert all(each == before[0][2:4] for found in after for each in found)


def test_rank_0_decides(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path, tmp_path: Path) -> None:
    """What it is given counts; it stops listening, cancels, and finds no file: the others are where it is."""
    document = tmp_path / "document.txt"
    document.write_text(TEXT)

    def run(ranks: Ranks) -> list:
        session, first = Session(*load(str(tiny_model_folder), LAZY, ranks=ranks)), ranks.rank == 0
        with pytest.raises(PromptError, match="nowhere"):
            session.read(Path("/nowhere") if first else document)
        session.read(document if first else Path("/nowhere"))
        heard = 0
        for response in session.ask("Who?" if first else "", max_tokens=8):
            heard += 1
            if first and response.generation_tokens == 3:
                break
        said = session.messages
        list(session.ask("Where?", max_tokens=8, on_progress=lambda progress: first or False))
        return [heard, said, session.messages, session.tokens]

    first, second = together(2, monkeypatch, run)
    assert first == second and first[0] == 3


def test_other_weights_and_adapters_are_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tiny_model_folder: Path
) -> None:
    def run(ranks: Ranks) -> None:
        with pytest.raises(ModelError, match="same weights, and have rank 0 on one [0-9a-f]+, rank 1 on two "):
            load(str(folder if ranks.rank else tiny_model_folder), ranks=ranks)
        with pytest.raises(ModelError, match="adapter: it cannot be split"):
            load(str(folder), adapter_path="/nowhere", ranks=ranks)
        with pytest.raises(ModelError, match="its 2 key heads .* cannot be split over 3 ranks; start 2 ranks"):
            load(str(tiny_model_folder), ranks=ranks)

    together(3, monkeypatch, run)
