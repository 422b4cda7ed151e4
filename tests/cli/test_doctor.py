"""What a machine is said to be, and what is said to do about it; no machine of these is needed."""

import sys
from typing import Any

import pytest

from lazymlx.cli.doctor import Finding, findings, look
from lazymlx.cli.main import main
from lazymlx.machine import machine, matrix_units

MAC: dict[str, Any] = {
    "lazymlx": "0.1.0",
    "commit": None,
    "python": "3.12.1",
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "system": "macOS-26.2",
    "macos": "26.2",
    "architecture": "arm64",
    "chip": "Apple M5 Max",
    "device": "metal",
    "matrix_units": True,
    "memory_bytes": 64 << 30,
    "cores": 16,
    "blas": None,
}


def advised(about: dict[str, Any], slow: str | None = None) -> dict[str, str]:
    return {finding.name: finding.advice for finding in findings({**MAC, **about}, slow) if finding.advice}


def test_a_good_mac_needs_no_advice() -> None:
    assert not advised({})
    assert Finding("matrix units", "in use") in list(findings(MAC, None))


@pytest.mark.parametrize(
    ("about", "name", "words"),
    [
        ({"macos": "13.6.1"}, "macOS", "update macOS"),
        ({"architecture": "x86_64"}, "architecture", "Rosetta"),
        ({"device": "cpu", "blas": "Accelerate"}, "device", "although there is a GPU"),
        ({"matrix_units": False}, "matrix units", "macOS 26.2"),
    ],
)
def test_each_fault_has_a_line_of_advice(about: dict[str, Any], name: str, words: str) -> None:
    found = advised(about)
    assert list(found) == [name] and words in found[name]


def test_slow_products_are_told() -> None:
    linux = {"macos": None, "architecture": "x86_64", "device": "cpu", "matrix_units": None, "blas": "MLX's own"}
    assert advised(linux, "install OpenBLAS") == {"products": "install OpenBLAS"}


@pytest.mark.parametrize(
    ("chip", "macos", "tags", "used"),
    [
        ("Apple M4 Max", "26.2", "Tag: cp312-cp312-macosx_26_0_arm64", None),
        ("NVIDIA H200", "", "", None),
        ("Apple M5", "26.2", "Tag: py3-none-macosx_26_0_arm64", True),
        ("Apple M5 Max", "26.1", "Tag: py3-none-macosx_26_0_arm64", False),
        ("Apple M5 Max", "26.3.1", "Tag: py3-none-macosx_15_0_arm64", False),
        ("Apple M5 Max", "15.7", "", False),
        ("Apple M6 Ultra", "27.0", "Tag: py3-none-macosx_26_0_arm64", True),
    ],
)
def test_when_matrix_units_are_used(chip: str, macos: str, tags: str, used: bool | None) -> None:
    assert matrix_units(chip, macos, tags) is used


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("lazymlx", "mlx-lm", "architecture", "chip", "device", "cores", "documents"))
    assert machine()["architecture"] and machine().keys() == {*MAC, "date"}


def test_without_mlx_that_is_what_there_is_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lazymlx.machine", None)
    [finding] = look()
    assert finding.name == "mlx" and finding.value.startswith("cannot be imported") and finding.advice
