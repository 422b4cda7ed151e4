"""The doors to the command line: every way to start it, and to import what shares a name with it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lazymlx import __version__
from lazymlx.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
HEAVY = ("mlx", "mlx_lm", "transformers", "numpy", "huggingface_hub")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, to which warnings are errors."""
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


STAND_IN = """
import sys, types
generation = sys.modules["lazymlx.generation"] = types.ModuleType("lazymlx.generation")
def the_function(): pass
generation.generate = the_function
"""


@pytest.mark.parametrize(
    "imports",
    [
        "from lazymlx import generate",
        "import lazymlx; generate = lazymlx.generate",
        "import lazymlx.generate; from lazymlx import generate",
        "import lazymlx.generate; generate = lazymlx.generate",
        "import lazymlx.generate as generate",
        "from lazymlx import generate; import lazymlx.generate; from lazymlx import generate",
        "from lazymlx.generate import main; from lazymlx import generate",
        "import importlib; importlib.import_module('lazymlx.generate'); from lazymlx import generate",
        "import lazymlx.cli.generate, lazymlx.generate; from lazymlx import generate",
    ],
)
def test_generate_is_the_function_after_every_import(imports: str) -> None:
    """A stand-in for generation.py saves loading MLX once an order; the next test goes without it."""
    done = python("-c", f"{STAND_IN}{imports}\nassert generate is the_function, generate")
    assert done.returncode == 0, done.stderr


def test_generate_is_the_real_function_too() -> None:
    code = "import lazymlx.generate; from lazymlx import *; import lazymlx.generation as g, sys"
    done = python("-c", f"{code}; assert generate is g.generate; assert sys.modules['lazymlx.generate'].main")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("door", [["lazymlx.generate"], ["lazymlx", "generate"]], ids=" ".join)
def test_every_door_leads_to_the_command_without_a_warning(door: list[str]) -> None:
    done = python("-m", *door, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: lazymlx generate")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Help is instant because of what it does not import."""
    code = f"""
import sys
from lazymlx.cli.main import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0
print("loaded:", *sys.modules)
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split("loaded:")[1].split()}
    assert "lazymlx" in loaded
    assert not loaded.intersection(HEAVY)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: lazymlx {name}" in capsys.readouterr().out


def test_no_command_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "generate" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lazymlx {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_is_taught_every_command_and_its_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == "" and all(name in out for name in COMMANDS)
    assert all(flag in out for flag in ("prompt-file", "target-speedup", "stats-json", "overwrite"))


def test_without_shtab_no_shell_is_taught(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'lazymlx[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_help_all_has_every_flag(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    essential = COMMANDS[name].essential
    flags = ["--help", "--help-all", "--help"] if essential else ["--help"]
    shown = []
    for flag in flags:
        with pytest.raises(SystemExit) as end:
            main([name, flag])
        assert end.value.code == 0
        shown.append(capsys.readouterr().out)
    assert len(shown[0].splitlines()) <= 40
    if essential:
        short, full, again = shown
        assert short == again and "--help-all" in short
        assert {f"--{flag}" for flag in essential} <= set(re.findall(r"--[a-z-]+", short))
        assert set(re.findall(r"--[a-z-]+", short)) < set(re.findall(r"--[a-z-]+", full))
        assert "--max-kv-size" not in full
