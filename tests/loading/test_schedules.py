"""Stored schedules: where they lie, how they are written, and which one `load` takes."""

from pathlib import Path

import pytest
from model_folder import write_model
from tiny import random_tokens

from lazymlx.calibrate.fit import fit_maps
from lazymlx.cli.main import main
from lazymlx.config import LazyConfig
from lazymlx.errors import ConfigError, MapsError, UsageError
from lazymlx.files import write_json
from lazymlx.loading import stored as schedules
from lazymlx.loading.load import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_model(tmp_path / "models" / "tiny")


def calibrated(folder: Path, **record: object) -> Path:
    path = schedules.user_file(folder)
    write_json(path, {"fingerprint": schedules.folder_fingerprint(folder), **record}, "schedule")
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


def test_the_users_calibration_goes_before_the_models_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lazymlx")
    assert str(loaded(folder).schedule) == "4:0.25"  # the preset
    (folder / "lazymlx.json").write_text('{"schedule": "4:0.5"}')
    assert str(loaded(folder).schedule) == "4:0.5"
    assert caplog.messages == []
    path = calibrated(folder, schedule="2:0.1", window=4, pool=1, reduce="max", min_tokens=300, speedup=9.0)
    lazy = loaded(folder)
    assert (str(lazy.schedule), lazy.window, lazy.pool, lazy.reduce, lazy.min_tokens) == ("2:0.1", 4, 1, "max", 300)
    assert caplog.messages == [f"schedule 2:0.1, as calibrated in {path}"]


def test_what_the_caller_asked_for_stays(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibrated(folder, schedule="2:0.1", window=4, pool=1)
    lazy = loaded(folder, LazyConfig(window=2))
    assert (str(lazy.schedule), lazy.window, lazy.pool) == ("2:0.1", 2, 1)
    caplog.clear()
    assert str(loaded(folder, LazyConfig("3:0.3")).schedule) == "3:0.3"
    assert caplog.messages == []


def test_so_does_what_has_its_default_if_it_is_fixed(folder: Path) -> None:
    calibrated(folder, schedule="2:0.1", window=4, min_tokens=300)
    lazy = load(str(folder), fixed={"min_tokens"})[0].lazy
    assert (str(lazy.schedule), lazy.window, lazy.min_tokens) == ("2:0.1", 4, 1024)


def test_an_empty_schedule_is_dense(folder: Path) -> None:
    calibrated(folder, schedule="dense")
    assert loaded(folder).cuts == ()


def test_another_model_of_the_same_name_is_noticed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = calibrated(folder, schedule="2:0.1")
    before = schedules.folder_fingerprint(folder)
    write_model(folder, intermediate_size=64)
    assert schedules.folder_fingerprint(folder) != before
    assert str(loaded(folder).schedule) == "4:0.25"
    [message] = caplog.messages
    assert str(path) in message and "another model" in message


def test_other_weights_are_another_model(folder: Path) -> None:
    before = schedules.folder_fingerprint(folder)
    assert schedules.folder_fingerprint(folder) == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert schedules.folder_fingerprint(folder) != before


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


# calibrations that a user names, and their maps


def shared(folder: Path, place: Path, cuts: tuple[int, ...] = (2, 4), **record: object) -> Path:
    """A folder as `lazymlx calibrate --out` writes it."""
    model, _ = load(str(folder), LazyConfig.dense())
    place.mkdir()
    chunks = [random_tokens(64, seed) for seed in range(12)]
    fit_maps(model, chunks, cuts, fingerprint=schedules.folder_fingerprint(folder)).save(
        place / "lazymlx.maps.safetensors"
    )
    about = {"fingerprint": schedules.folder_fingerprint(folder), "schedule": "2:0.5,4:0.2", "maps": True}
    write_json(place / "lazymlx.json", {**about, **record}, "schedule")
    return place


def test_a_shared_calibration_brings_its_maps(folder: Path, tmp_path: Path) -> None:
    place = shared(folder, tmp_path / "shared")
    for named in (place, place / "lazymlx.json", str(place)):
        model, _ = load(str(folder), calibration=named)
        assert str(model.lazy.schedule) == "2:0.5,4:0.2" and list(model.engine.maps.cuts) == [2, 4]
    model, _ = load(str(folder), LazyConfig("2:0.3"), calibration=place)
    assert str(model.lazy.schedule) == "2:0.3" and model.engine.maps.serve(model.lazy)
    assert load(str(folder))[0].engine.maps is None


def test_one_that_lies_in_the_models_folder_is_found(folder: Path, tmp_path: Path) -> None:
    for path in shared(folder, tmp_path / "shared").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert list(load(str(folder))[0].engine.maps.cuts) == [2, 4]
    write_model(folder, intermediate_size=64)  # another model in its place: its calibration is none of this one's
    model, _ = load(str(folder))
    assert model.engine.maps is None and str(model.lazy.schedule) == "4:0.25"


def test_one_of_other_weights_or_another_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    place = shared(folder, tmp_path / "shared")
    other = write_model(tmp_path / "models" / "other", intermediate_size=64)
    with pytest.raises(ConfigError, match="calibrated for another model, other weights or another quantisation"):
        load(str(other), calibration=place)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapters.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="calibrated for another model"):
        schedules.read_stored(place, folder, str(tmp_path / "adapter"))


def test_one_that_is_not_whole_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; expected what 'lazymlx calibrate --out' writes"):
        load(str(folder), calibration=tmp_path / "nothing")
    place = shared(folder, tmp_path / "shared")
    maps = place / "lazymlx.maps.safetensors"
    content = maps.read_bytes()
    maps.write_bytes(content[:-10])
    with pytest.raises(MapsError, match="was cut short"):
        load(str(folder), calibration=place)
    maps.unlink()
    with pytest.raises(ConfigError, match="needs the maps that were written beside it"):
        load(str(folder), calibration=place)


@pytest.mark.parametrize(("cuts", "message"), [((), "no maps are stored"), ((4,), "maps for the cuts at 4 alone")])
def test_looking_ahead_is_not_left_out_silently(folder: Path, tmp_path: Path, cuts: tuple, message: str) -> None:
    place = shared(folder, tmp_path / "shared", cuts) if cuts else None
    with pytest.raises(ConfigError, match=rf"lookahead: {message} .* 'lazymlx calibrate' fits them"):
        load(str(folder), LazyConfig("2:0.5,4:0.2"), fixed={"lookahead"}, calibration=place)
    load(str(folder), LazyConfig("2:0.5,4:0.2", lookahead=0), fixed={"lookahead"}, calibration=place)


def test_the_command_line_takes_a_calibration_for_a_schedule(folder: Path, tmp_path: Path, capsys) -> None:
    place = shared(folder, tmp_path / "shared")
    said = ["generate", "--model", str(folder), "--prompt", "one two three", "--max-tokens", "2"]
    assert main([*said, "--schedule", str(place), "--lookahead", "on", "--lazy", "on"]) == 0
    capsys.readouterr()
    assert main([*said, "--schedule", "2:0.5", "--lookahead", "on"]) == 2
    assert "lazymlx: error: lookahead: no maps are stored" in capsys.readouterr().err
    assert main([*said, "--schedule", str(tmp_path / "none")]) == 2
    assert "is not there" in capsys.readouterr().err
    assert main([*said, "--lookahead", "far"]) == 2
    assert "must be on, off or a whole number, got 'far'" in capsys.readouterr().err
