"""scripts/env says what is wrong with a Mac before it installs anything; here small programs play the Mac."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ["python3.14", "python3.13", "python3.12", "python3.11", "python3", "python"]


def on_a_mac(folder: Path, *, arm64: int = 1, macos: str = "26.2", chip: str = "Apple M5 Max") -> str:
    """What scripts/env says on such a Mac, where every Python runs under Rosetta."""
    (folder / "scripts").mkdir()
    for name in ("env", "system"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    shutil.copy(ROOT / "pyproject.toml", folder)
    tools = folder / "tools"
    tools.mkdir()
    programs = {
        "uname": "echo Darwin",
        "sw_vers": f"echo {macos}",
        "sysctl": f'[ "$2" = hw.optional.arm64 ] && echo {arm64} || echo "{chip}"',
        **dict.fromkeys(NAMES, "exit 1"),
    }
    for name, code in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{code}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "scripts/env"], cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and not done.stdout
    return done.stderr


def test_an_intel_mac(tmp_path: Path) -> None:
    assert "Intel processor" in on_a_mac(tmp_path, arm64=0)


@pytest.mark.parametrize("macos", ["12.7", "13.6.1"])
def test_an_old_mac(tmp_path: Path, macos: str) -> None:
    assert f"macOS {macos} is too old for MLX, which needs macOS 14" in on_a_mac(tmp_path, macos=macos)


def test_pythons_under_rosetta(tmp_path: Path) -> None:
    said = on_a_mac(tmp_path)
    assert said.count("\n") == 1 and "no Python >= 3.11" in said and "not one that runs under Rosetta" in said


@pytest.mark.parametrize(
    ("chip", "macos", "told"),
    [
        ("Apple M5 Max", "26.1", True),
        ("Apple M5", "15.7.2", True),
        ("Apple M5", "26", True),
        ("Apple M5", "26.2", False),
        ("Apple M5", "27.0", False),
        ("Apple M4 Pro", "15.7", False),
    ],
)
def test_idle_matrix_units(tmp_path: Path, chip: str, macos: str, told: bool) -> None:
    assert ("matrix units idle" in on_a_mac(tmp_path, macos=macos, chip=chip)) is told
