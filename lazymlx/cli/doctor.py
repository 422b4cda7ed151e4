"""`lazymlx doctor`: what it runs on, with a line of advice where something is missing. A bug report begins with it."""

import argparse
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

OLDEST_MACOS = (14,)
EXTRAS = {"documents": ("pypdf", "PDF, docx, HTML and EPUB"), "serve": ("starlette", "lazymlx serve")}


class Finding(NamedTuple):
    """A fact about this machine, and what to do about it, if anything."""

    name: str
    value: str
    advice: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    """Look, and say what there is. Returns the exit code."""
    for finding in look():
        print(f"{finding.name:13} {finding.value}")
        if finding.advice:
            print(f"{'':13}   -> {finding.advice}")
    return 0


def look() -> Iterator[Finding]:
    """Everything, also where MLX cannot be imported: then that is what to know."""
    try:
        from ..machine import advice, machine
    except ImportError as error:
        reason = f"cannot be imported: {error}"
        yield Finding("mlx", reason, "install lazymlx again: scripts/env; on a Mac, with an arm64 Python and macOS 14")
        return
    yield from findings(machine(), advice())
    for extra, (package, purpose) in EXTRAS.items():
        there = find_spec(package) is not None
        how = None if there else f"for {purpose}: pip install 'lazymlx[{extra}]'"
        yield Finding(extra, "installed" if there else "not installed", how)


def findings(about: Mapping[str, Any], slow: str | None) -> Iterator[Finding]:
    """What a machine's description says.

    Args:
        about: see `machine`.
        slow: what would make it many times faster, see `advice`.
    """
    from ..machine import version_of

    yield Finding("lazymlx", " ".join(str(about[name]) for name in ("lazymlx", "commit") if about[name]))
    yield Finding("python", str(about["python"]))
    yield Finding("mlx", str(about["mlx"]))
    yield Finding("mlx-lm", str(about["mlx_lm"]))
    yield Finding("system", str(about["system"]))
    on_mac = about["macos"] is not None
    if on_mac:
        old = version_of(about["macos"]) < OLDEST_MACOS
        yield Finding("macOS", about["macos"], "MLX has no wheels before macOS 14: update macOS" if old else None)
    intel = "this Python runs under Rosetta or on an Intel Mac, for which MLX has no wheels: install an arm64 Python"
    foreign = on_mac and about["architecture"] != "arm64"
    yield Finding("architecture", str(about["architecture"]), intel if foreign else None)
    yield Finding("chip", str(about["chip"]))
    idle = "MLX uses the CPU although there is a GPU: unset MLX_DEVICE, and install MLX's own wheel"
    yield Finding("device", str(about["device"]), idle if on_mac and about["device"] == "cpu" else None)
    if about["matrix_units"] is not None:
        used = about["matrix_units"]
        how = (
            "prefill takes 3 times as long without them: update to macOS 26.2, then: pip install --force-reinstall mlx"
        )
        yield Finding("matrix units", "in use" if used else "not in use", None if used else how)
    memory = about["memory_bytes"]
    yield Finding(
        "memory", f"{memory / 2**30:.0f} GiB, {about['cores']} cores" if memory else f"{about['cores']} cores"
    )
    if about["blas"] is not None:
        yield Finding("products", str(about["blas"]), slow)
