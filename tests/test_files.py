"""Files that a command leaves: tried beforehand, written whole or not at all."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lazymlx.errors import RunError, UsageError
from lazymlx.files import check_file, check_folder, holds, replacing, write_json, write_text


def nothing_is(path: Path) -> bool:
    """Ours."""
    return False


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
    check_file(Path("/dev/null"), "--out", nothing_is)
    write_text(Path("/dev/null"), "nothing", "--out")
    assert not Path("/dev/null").is_file()


def test_a_stream_that_goes_to_a_file_is_not_cut_off(tmp_path: Path) -> None:
    with (tmp_path / "answer").open("w") as file:
        print("the answer", file=file, flush=True)
        write_text(Path(f"/dev/fd/{file.fileno()}"), "figures\n", "--out")
    assert (tmp_path / "answer").read_text() == "the answer\nfigures\n"


KILLED = """
import os, signal
from pathlib import Path
from lazymlx.files import replacing
with replacing(Path({path!r})) as file:
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_save_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "book"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED.format(path=str(path))])
        assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1  # of the second; it removed the first one's
    [left] = names(tmp_path)
    elsewhere = re.sub(r"\.[0-9a-f]{8}-", ".0123abcd-", left)  # another machine's
    (tmp_path / elsewhere).touch()
    with replacing(tmp_path / "other") as living:
        write_text(path, "whole", "--out")
        living.write(b"too")
    assert names(tmp_path) == [elsewhere, "book", "other"]


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "pipe", "--out", nothing_is)


def test_what_cannot_be_written_or_would_be_lost_is_refused_and_a_trial_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "empty").touch()
    below, dangling = tmp_path / "file" / "x", tmp_path / "link to a file"
    dangling.symlink_to(tmp_path / "gone")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x", "there is no folder .*no; make it first"),
        (below, "there is no folder"),
        (tmp_path / "file", "is a file of another kind, which would be lost"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(UsageError, match=f"--out: .*{said}"):
            check_file(path, "--out", nothing_is)
    for path in (tmp_path / "file", below, below / "y", dangling):
        with pytest.raises(UsageError, match="--out: .*file is no folder"):
            check_folder(path, "--out")
    with pytest.raises(UsageError, match="--out: .*too long"):
        check_folder(tmp_path / ("x" * 300), "--out")
    for path in (tmp_path / "new", tmp_path / "empty", dangling):
        check_file(path, "--out", nothing_is)
    check_file(tmp_path / "file", "--out", lambda there: there.read_text() == "kept")
    check_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["empty", "file", "link to a file"]


@pytest.mark.parametrize("content, ours", [('{"cells": []}', True), ("[1]", False), ("{", False), ("\x00", False)])
def test_files_of_ours_are_known_by_a_field(tmp_path: Path, content: str, ours: bool) -> None:
    (tmp_path / "x.json").write_text(content)
    assert holds(tmp_path / "x.json", "cells") is ours


def test_who_may_read_the_old_file_may_read_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "new", "", "--out")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    write_text(tmp_path / "new", "again", "--out")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
