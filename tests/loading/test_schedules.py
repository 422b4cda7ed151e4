"""Stored schedules: where they lie, how they are written, and which one `load` takes."""

from pathlib import Path

import pytest
from model_folder import write_model

from lazymlx.config import LazyConfig
from lazymlx.errors import ConfigError, UsageError
from lazymlx.files import write_json
from lazymlx.loading import stored as schedules
from lazymlx.loading.load import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_model(tmp_path / "models" / "tiny")


def calibrated(folder: Path, **record: object) -> Path:
    path = schedules.user_file(folder)
    write_json(path, {"fingerprint": schedules.fingerprint(folder), **record}, "schedule")
    return path


def loaded(folder: Path, lazy: LazyConfig | None = None) -> LazyConfig:
    return load(str(folder), lazy)[0].lazy


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert schedules.user_folder() == tmp_path / "own" / "lazymlx" / "schedules"
    monkeypatch.setenv("HOME", str(tmp_path))
    for useless in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert schedules.user_folder() == tmp_path / ".cache" / "lazymlx" / "schedules"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/models/tiny", "models--tiny"),
        ("/tiny", "tiny"),
        ("/a/.cache/tiny", "cache--tiny"),
        ("/h/hub/models--org--Name-4bit/snapshots/abc", "org--Name-4bit"),
    ],
)
def test_a_model_is_called_by_its_place(path: str, name: str) -> None:
    assert schedules.name_of(Path(path)) == name


def test_the_users_calibration_goes_before_the_models_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(loaded(folder).schedule) == "4:0.25"  # the preset
    (folder / "lazymlx.json").write_text('{"schedule": "4:0.5"}')
    assert str(loaded(folder).schedule) == "4:0.5"
    assert capsys.readouterr().err == ""
    path = calibrated(folder, schedule="2:0.1", window=4, pool=1, reduce="max", min_tokens=300, speedup=9.0)
    lazy = loaded(folder)
    assert (str(lazy.schedule), lazy.window, lazy.pool, lazy.reduce, lazy.min_tokens) == ("2:0.1", 4, 1, "max", 300)
    assert capsys.readouterr().err == f"lazymlx: schedule 2:0.1, as calibrated in {path}\n"


def test_what_the_caller_asked_for_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated(folder, schedule="2:0.1", window=4, pool=1)
    lazy = loaded(folder, LazyConfig(window=2))
    assert (str(lazy.schedule), lazy.window, lazy.pool) == ("2:0.1", 2, 1)
    capsys.readouterr()
    assert str(loaded(folder, LazyConfig("3:0.3")).schedule) == "3:0.3"
    assert capsys.readouterr().err == ""


def test_so_does_what_has_its_default_if_it_is_fixed(folder: Path) -> None:
    calibrated(folder, schedule="2:0.1", window=4, min_tokens=300)
    lazy = load(str(folder), fixed={"min_tokens"})[0].lazy
    assert (str(lazy.schedule), lazy.window, lazy.min_tokens) == ("2:0.1", 4, 1024)


def test_an_empty_schedule_is_dense(folder: Path) -> None:
    calibrated(folder, schedule="dense")
    assert loaded(folder).cuts == ()


def test_another_model_of_the_same_name_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = calibrated(folder, schedule="2:0.1")
    before = schedules.fingerprint(folder)
    write_model(folder, intermediate_size=64)
    assert schedules.fingerprint(folder) != before
    assert str(loaded(folder).schedule) == "4:0.25"
    err = capsys.readouterr().err
    assert str(path) in err and "another model" in err


def test_other_weights_are_another_model(folder: Path) -> None:
    before = schedules.fingerprint(folder)
    assert schedules.fingerprint(folder) == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert schedules.fingerprint(folder) != before


@pytest.mark.parametrize(
    "content", ["not json", "[1]", '{"window": 4}', '{"schedule": "9:0.1,4:0.5"}', '{"schedule": "2:0.5", "window": 0}']
)
def test_a_broken_file_is_named(folder: Path, content: str) -> None:
    (folder / "lazymlx.json").write_text(content)
    with pytest.raises(ConfigError, match="lazymlx.json"):
        loaded(folder)


def test_a_bad_place_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "below.json"):
        with pytest.raises(UsageError, match="--out: "):
            schedules.check_writable(place, "--out")
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"mine\.txt is a file of another kind"):
        schedules.check_writable(tmp_path / "mine.txt", "--out")
    write_json(tmp_path / "old.json", {"schedule": "2:0.5"}, "--out")
    schedules.check_writable(tmp_path / "old.json", "--out")
    schedules.check_writable(tmp_path / "new" / "x.json", "--out")
    assert not (tmp_path / "new" / "x.json").exists()
