"""Live servers on free ports."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs pip install 'lazymlx[serve]'")
pytest.importorskip("uvicorn", reason="needs pip install 'lazymlx[serve]'")


@pytest.fixture(scope="session")
def anthropic():
    """The client's package. Importing it takes a second, which the processes of other tests save."""
    return pytest.importorskip("anthropic")


@pytest.fixture(scope="session")
def openai():
    return pytest.importorskip("openai")


@pytest.fixture(scope="session")
def address(tiny_model_folder: Path) -> Iterator[str]:
    """Of a tiny random model, with the key `secret`."""
    from serving import Served

    with Served(tiny_model_folder) as served:
        yield served.address


@pytest.fixture
def serve() -> Iterator[Callable]:
    """Starts a server of one's own: of a model's folder, with other settings."""
    from serving import Served

    running = []

    def start(folder: Path, **settings) -> Served:
        running.append(Served(folder, **settings).__enter__())
        return running[-1]

    yield start
    for served in running:
        served.__exit__(None, None, None)
