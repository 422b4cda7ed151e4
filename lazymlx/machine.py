"""The machine and the software behind a figure."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlx.core as mx

from . import __version__


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
    """The library that computes float32 products on a CPU; MLX's Linux wheel brings one that is 50 times slower."""
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
