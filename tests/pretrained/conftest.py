"""A model that others have trained: what scripts/pretrained fetched, or the folder that LAZYMLX_PRETRAINED names."""

import json
import os
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model

from lazymlx import load
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model

FETCHED = Path(__file__).parents[2] / "out" / "smollm2"
FOLDER = Path(os.environ.get("LAZYMLX_PRETRAINED", FETCHED))
if not (FOLDER / "config.json").is_file():
    collect_ignore = ["test_commands.py", "test_smollm2.py"]  # test_fetched.py says why, once


@pytest.fixture(scope="session")
def folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def loaded(folder: Path) -> tuple[Model, TokenizerWrapper]:
    return load(str(folder), LazyConfig.dense())


@pytest.fixture(scope="session")
def stock(folder: Path):
    """mlx-lm's own, with the weights as `load` casts them."""
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return model


@pytest.fixture(scope="session")
def shallow(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first three layers alone, with its template and tokenizer: what it says makes no sense, and comes soon."""
    return write_first_layers(folder, tmp_path_factory.mktemp("shallow"), 3)


@pytest.fixture(scope="session")
def first_layer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_first_layers(folder, tmp_path_factory.mktemp("first"), 1)


def write_first_layers(folder: Path, place: Path, count: int) -> Path:
    """A model of another's first layers."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    deeper = tuple(f"model.layers.{layer}." for layer in range(count, config["num_hidden_layers"]))
    kept = {name: w for name, w in weights.items() if not name.startswith(deeper)}
    mx.save_safetensors(str(place / "model.safetensors"), kept, metadata={"format": "mlx"})
    (place / "config.json").write_text(json.dumps({**config, "num_hidden_layers": count}), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, place)
    return place
