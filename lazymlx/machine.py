"""The machine and the software behind a figure."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import mlx.core as mx

from . import __version__

FIRST_WITH_MATRIX_UNITS = 5  # generation of Apple's chips
NEEDED_BY_MATRIX_UNITS = (26, 2)  # version of macOS


def machine() -> dict[str, Any]:
    """Chip, device, versions, commit and date, ready for JSON."""
    info = mx.device_info()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "chip": str(info.get("device_name", "unknown")),
        "device": device(),
        "memory_bytes": info.get("memory_size", info.get("total_memory")),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "macos": platform.mac_ver()[0] or None,
        "architecture": platform.machine(),
        "matrix_units": matrix_units(str(info.get("device_name", "")), platform.mac_ver()[0], wheel_tags("mlx-metal")),
        "python": platform.python_version(),
        "mlx": installed("mlx"),
        "mlx_lm": installed("mlx-lm"),
        "lazymlx": __version__,
        "commit": commit(),
        "blas": blas() if on_cpu() else None,
    }


def on_cpu() -> bool:
    return mx.default_device() == mx.Device(mx.cpu)


def device() -> str:
    """The backend that runs the arrays: cpu, metal or cuda."""
    if on_cpu():
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def matrix_units(chip: str, macos: str, tags: str) -> bool | None:
    """Whether the matrix units of an M5 or later are used, which prefill is bound by.

    Args:
        chip: as Metal names it.
        macos: its version.
        tags: of the wheel with MLX's Metal kernels: one that is made for macOS 26 has those for the units.

    Returns:
        None if the chip has none.
    """
    generation = re.match(r"Apple M(\d+)", chip)
    if generation is None or int(generation[1]) < FIRST_WITH_MATRIX_UNITS:
        return None
    built_for = [int(number) for number in re.findall(r"macosx_(\d+)_", tags)]
    return version_of(macos) >= NEEDED_BY_MATRIX_UNITS and max(built_for, default=0) >= NEEDED_BY_MATRIX_UNITS[0]


def version_of(text: str) -> tuple[int, ...]:
    """A version's numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def wheel_tags(package: str) -> str:
    """What an installed wheel was built for; empty if there is none."""
    try:
        return distribution(package).read_text("WHEEL") or ""
    except PackageNotFoundError:
        return ""


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Of the checkout that this package runs from, with a + if its sources were changed since; None outside of one."""
    here = Path(__file__).parent
    try:
        head, changed = (
            subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def blas() -> str:
    """The library that computes float32 products on a CPU; MLX's Linux wheel brings one that is far slower."""
    if platform.system() == "Darwin":
        return "Accelerate"
    maps = Path("/proc/self/maps")
    return "OpenBLAS" if maps.is_file() and has_openblas(maps.read_text(errors="replace")) else "MLX's own"


def advice() -> str | None:
    """What would make this machine many times faster; None where nothing is known."""
    if not on_cpu() or blas() != "MLX's own":
        return None
    return (
        "OpenBLAS is not loaded, and without it a CPU is up to 50 times slower: install it (Debian, Ubuntu: "
        "libopenblas0-pthread) and start with LD_PRELOAD=libopenblas.so.0"
    )


def has_openblas(maps: str) -> bool:
    """Whether one is loaded that MLX's products reach: NumPy brings a copy of its own, under names of its own."""
    return any("/libopenblas" in line and ".libs/" not in line for line in maps.splitlines())
