"""What a saved document says of where it came from is taken for what it is: words in a file."""

import argparse
from pathlib import Path

import pytest

from lazymlx import Session, load
from lazymlx.cli.origin import THE_EMBEDDED, ReadDocument, documents_of, origin, own_model
from lazymlx.errors import ModelError


@pytest.fixture(scope="module")
def session(tiny_model_folder: Path) -> Session:
    session = Session(*load(str(tiny_model_folder)))
    session.read("The keeper is old.")
    return session


def flags(document: Path | None, *given: str) -> argparse.Namespace:
    values = {"model": "default", "adapter_path": None, "trust_remote_code": True}
    return argparse.Namespace(document=document, given=frozenset(given), ranks=None, **values)


@pytest.mark.parametrize(
    "said, model",
    [
        ({"model": "org/name"}, "org/name"),
        ({"model": THE_EMBEDDED}, None),
        ({"model": 7}, "default"),
        ({}, "default"),
    ],
)
def test_a_documents_model_goes_before_a_default(session: Session, said: dict, model: str | None, tmp_path: Path):
    session.save(tmp_path / "saved", said)
    args = flags(tmp_path / "saved")
    with own_model(args):
        assert args.model == model
    assert args.trust_remote_code == (model == "default")  # no code is run of what a file names


def test_what_the_user_names_goes_first(session: Session, tmp_path: Path) -> None:
    session.save(tmp_path / "saved", {"model": "org/name", "adapter": "there"})
    args = flags(tmp_path / "saved", "model")
    with pytest.raises(ModelError, match="^mine$"), own_model(args):
        raise ModelError("mine")
    assert (args.model, args.adapter_path) == ("default", None)
    args = flags(tmp_path / "saved")
    with pytest.raises(ModelError, match="saved was saved with org/name, which cannot be had; .* \\(gone\\)"):
        with own_model(args):
            raise ModelError("gone")
    assert args.adapter_path == "there"


def test_names_of_documents_come_back(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model_folder.parent)
    args = argparse.Namespace(model=tiny_model_folder.name, adapter_path=None)
    saved = origin(args, [ReadDocument("book", 7)])
    assert saved["model"] == str(tiny_model_folder.resolve()) and documents_of(saved) == [ReadDocument("book", 7)]
    assert (
        documents_of({}) == documents_of({"documents": 7}) == documents_of({"documents": [7, ["a"], ["a", "b"]]}) == []
    )
