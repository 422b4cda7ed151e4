"""Every test runs offline, from the same seed, and, but for those of whole commands, with lazymlx's shapes checked."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import config, install_import_hook

# These must stand before the first import of lazymlx, which no test module can precede.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("LAZYMLX_MODEL", None)
os.environ["MLX_ENABLE_TF32"] = "0"  # new GPUs would round the factors of float32 products to 10 bits
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; what is started here would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
PACKAGE = Path(__file__).parents[1] / "lazymlx"
SHAPED = [path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text(encoding="utf-8")]
MODULES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in SHAPED]
install_import_hook([name.removesuffix(".__init__") for name in MODULES], "checking.checked")

# Examples run the model on a CPU that others may be using: how long one takes says nothing.
settings.register_profile(
    "lazymlx",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lazymlx")


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of our own: what whoever runs the tests has calibrated or configured is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield folder


# Checking the shapes of every call takes most of a decode step. So tests that come through a door (a command, an
# example, a session, a whole model) do without, and so do those that repeat a conversation for every setting and carry
# the mark `unchecked`: the functions below them are called with checks by the other tests of engine/, nn/ and cache/.
DOORS = {"bench", "calibrate", "cli", "demo", "examples", "explain", "loading", "pretrained"}
DOORS |= {"ranks", "serve", "session"}


@pytest.fixture(autouse=True)
def shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    through_a_door = request.path.parent.name in DOORS or request.path.stem.endswith("_cli")
    config.update("jaxtyping_disable", through_a_door or request.node.get_closest_marker("unchecked") is not None)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def seed() -> None:
    mx.random.seed(0)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 6-layer Llama with random weights and the embedded tokenizer; not to be written to."""
    from model_folder import write_model  # it imports lazymlx

    return write_model(tmp_path_factory.mktemp("models") / "tiny")
