"""The shape of the package: imports go one way, files stay short, importing costs and does nothing."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lazymlx"

# A row may import the rows above it; neighbours in a row do not know each other. Place a new module here.
ORDER = [
    {"errors"},
    {"demo", "ending", "files", "journal", "messages", "places", "templates", "units"},
    {"schedule"},
    {"config", "progress", "stats", "sealed", "documents", "ranks"},
    {"cache"},
    {"nn"},
    {"engine"},
    {"costs", "wired"},
    {"loading"},
    {"prefill"},
    {"generation"},
    {"session"},
    {"machine"},
    {"eval", "bench", "explain"},
    {"calibrate", "serve"},
    {"tables"},
    {"cli"},
    {"generate", "chat", "__main__"},  # the doors: python -m lazymlx.generate
]
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}
FACADE = "__init__"  # lazymlx itself, which hands out the names of everything up to the session
FACADE_RANK = RANK["session"]
MOST_LINES = 350
MOST_PARAMETERS = 8
LIKE_MLX_LM = {"generate_step", "load"}  # whose parameters are mlx-lm's, and ours
SEES_PRIVATE = {"support/talking.py"}  # a session's cache and marks, bit by bit, which are nobody's but its tests'
HEAVY = ("mlx", "mlx_lm", "transformers")

SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = Path(__file__).parent


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def top_level(path: Path) -> str:
    """The module or package directly below lazymlx that a file belongs to; a package's door is one of the doors."""
    return "__main__" if path.stem == "__main__" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> set[str]:
    return {top_level(path) for path in SOURCES} - {FACADE}


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """The module that `from ... import` names, relative dots resolved."""
    if not node.level:
        return node.module or ""
    package = ("lazymlx", *path.relative_to(PACKAGE).parts[:-1])
    return ".".join(package[: len(package) - node.level + 1] + ((node.module,) if node.module else ()))


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `node` that can run: what only a type checker reads ties no module to another."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from executed(child)


def imported(path: Path) -> Iterator[str]:
    """Dotted names below lazymlx that a file imports, anywhere in it: a late import is a dependency too."""
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{absolute(node, path)}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "lazymlx")


def types_of(path: Path) -> Iterator[str]:
    """Public classes and type aliases that a file defines."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        named = [node.name] if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.Assign):
            named = [target.id for target in node.targets if isinstance(target, ast.Name)]
        yield from (name for name in named if name[0].isupper() and not name.isupper())


def private_names(path: Path) -> Iterator[str]:
    """Names that begin with an underscore and are imported, or asked of something else than the test itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        else:
            continue
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def target_rank(name: str) -> int:
    below = name.split(".")[1:]
    return RANK[below[0]] if below and below[0] in modules() else FACADE_RANK


def python(code: str) -> str:
    """What a fresh interpreter, to which warnings are errors, prints; its traceback is the failure."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_place() -> None:
    unknown = sorted(modules() - RANK.keys())
    assert not unknown, f"place these in ORDER, at the top of this file: {', '.join(unknown)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    own = top_level(path)
    if own == FACADE or own not in RANK:
        return  # the facade may name everything; an unknown module fails above
    for name in imported(path):
        if name.split(".")[1:2] != [own]:
            assert target_rank(name) < RANK[own], f"{name} does not stand before {own} in ORDER"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines, more than {MOST_LINES}: give each idea its own file"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_take_few_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in LIKE_MLX_LM:
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [each.arg for each in given if each.arg not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, f"{node.name} takes {len(names)}: put what belongs together in one"


def test_a_type_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for name in types_of(path):
            homes.setdefault(name, []).append(relative(path))
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert not shared, "one name, one thing: rename all but one of these, by what they are for"


def test_tests_go_by_what_is_public() -> None:
    found = {path.relative_to(TESTS).as_posix(): sorted(private_names(path)) for path in sorted(TESTS.rglob("*.py"))}
    assert {path for path, names in found.items() if names} <= SEES_PRIVATE, found


def test_importing_the_package_loads_no_framework() -> None:
    loaded = python("import sys, lazymlx; print(*sys.modules)").split()
    assert "lazymlx" in loaded
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_every_module_imports_without_a_warning() -> None:
    names = [
        info.name for info in pkgutil.walk_packages([str(PACKAGE)], "lazymlx.") if not info.name.endswith(".__main__")
    ]
    python("\n".join(f"import {name}" for name in names))
