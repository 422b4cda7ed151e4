"""A live server on a free port, with the embedded model."""

import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="needs pip install 'lazymlx[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="needs pip install 'lazymlx[serve]'")


@pytest.fixture(scope="session")
def address(tiny_model_folder) -> Iterator[str]:
    from lazymlx import LazyConfig, load
    from lazymlx.cli.serve import listen
    from lazymlx.serve.app import make_app
    from lazymlx.serve.worker import Worker

    model, tokenizer = load(str(tiny_model_folder), LazyConfig())
    worker = Worker(model, tokenizer, 4, 64)
    server = uvicorn.Server(uvicorn.Config(make_app(worker, "tiny", "secret"), log_level="warning"))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    worker.close()
