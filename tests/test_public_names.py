"""What a user is shown imports public names only, and the README stays a front door."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazymlx

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def private(code: str) -> Iterator[str]:
    """Names below lazymlx that are imported and not public: neither in `__all__`, nor of a module that is."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("lazymlx."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lazymlx":
            module = (node.module or "").removeprefix("lazymlx").removeprefix(".")
            if module:
                yield from () if module in lazymlx.__all__ else (f"lazymlx.{module}",)
            else:
                yield from (a.name for a in node.names if a.name not in lazymlx.__all__)


def test_the_check_finds_what_is_private() -> None:
    code = "import lazymlx.engine\nfrom lazymlx import load, nothing\nfrom lazymlx.nn.attend import attend"
    assert list(private(code)) == ["lazymlx.engine", "nothing", "lazymlx.nn.attend"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_import_public_names_only(path: Path) -> None:
    assert list(private(path.read_text(encoding="utf-8"))) == []


def test_the_readme_imports_public_names_only() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    assert [name for block in blocks for name in private(block)] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 180


@pytest.mark.parametrize(
    "page", [README, ROOT / "scripts/results/README.md", ROOT / ".github/CONTRIBUTING.md"], ids=str
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", lazymlx.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(importlib.import_module("lazymlx"), name) is not None


def test_public_names_are_listed_once_in_order() -> None:
    assert sorted(set(lazymlx.__all__)) == lazymlx.__all__
