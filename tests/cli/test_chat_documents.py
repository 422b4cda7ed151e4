"""Which document a user of a chat means."""

from pathlib import Path

import pytest

from lazymlx.cli.documents import path_of, sources_of
from lazymlx.documents import read_document
from lazymlx.errors import PromptError


def test_paths_are_read_as_they_are_or_as_a_shell_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "the keeper's book.txt"
    path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (str(path), f'"{path}"', str(path).replace(" ", r"\ ").replace("'", r"\'"), "~/the keeper's book.txt"):
        assert path_of(words) == path
    assert path_of("the keeper's diary") == Path("the keeper's diary")
    assert path_of("two words") == Path("two words")


def test_names_that_no_file_can_have_are_a_sentence() -> None:
    for words in ("a" * 5000, "~nobody of that name/book.txt"):
        with pytest.raises(PromptError, match="cannot be read"):
            read_document(path_of(words))
    with pytest.raises(PromptError, match="zero byte"):
        path_of("a\0b")


def test_an_address_is_no_path() -> None:
    assert sources_of("https://example.org/a") == ["https://example.org/a"]
    assert sources_of("https") == [Path("https")]


def test_several_are_meant_if_all_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "a", "b", "c d"):
        Path(name).touch()
    assert sources_of("a b") == [Path("a b")]
    assert sources_of("b a 'c d' https://example.org/") == [Path("b"), Path("a"), Path("c d"), "https://example.org/"]
    assert sources_of("a nothing") == [Path("a nothing")]
