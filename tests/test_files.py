"""Files that a command leaves: tried beforehand, written whole or not at all."""

import json
from pathlib import Path

import pytest

from lazymlx.errors import RunError, UsageError
from lazymlx.files import check_file, check_folder, holds, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.json"
    write_json(path, {"schedule": "2:0.5"}, "--out")

    def disk_is_full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_is_full)
    with pytest.raises(RunError, match=r"--out: .*b\.json could not be written: No space left on device"):
        write_json(path, {"schedule": "3:0.5"}, "--out")
    assert json.loads(path.read_text()) == {"schedule": "2:0.5"}
    assert names(tmp_path) == ["b.json"]


def test_a_folder_that_went_away_while_the_model_was_working_is_made_again(tmp_path: Path) -> None:
    write_json(tmp_path / "gone" / "stats.json", {}, "--stats-json")
    assert names(tmp_path / "gone") == ["stats.json"]


def test_a_link_stays_one_and_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "whole", "--out")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "whole"
    write_text(Path("/dev/null"), "nothing", "--out")
    assert not Path("/dev/null").is_file()


def test_what_cannot_be_written_is_refused_and_a_trial_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    below = tmp_path / "file" / "x"
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "No such file"), (below, "Not a directory")):
        with pytest.raises(UsageError, match=f"--out: .*{said}"):
            check_file(path, "--out")
    (tmp_path / "link to a file").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "file", below, below / "y", tmp_path / "link to a file"):
        with pytest.raises(UsageError, match="--out: .*file is no folder"):
            check_folder(path, "--out")
    with pytest.raises(UsageError, match="--out: .*too long"):
        check_folder(tmp_path / ("x" * 300), "--out")
    check_file(tmp_path / "file", "--out")
    check_file(tmp_path / "new", "--out")
    check_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["file", "link to a file"]


@pytest.mark.parametrize("content, ours", [('{"cells": []}', True), ("[1]", False), ("{", False), ("\x00", False)])
def test_files_of_ours_are_known_by_a_field(tmp_path: Path, content: str, ours: bool) -> None:
    (tmp_path / "x.json").write_text(content)
    assert holds(tmp_path / "x.json", "cells") is ours
