"""A model that others have trained: what scripts/pretrained fetched, or the folder that LAZYMLX_PRETRAINED names."""

import os
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model

from lazymlx import load
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model

FETCHED = Path(__file__).parents[2] / "out" / "smollm2"


@pytest.fixture(scope="session")
def folder() -> Path:
    path = Path(os.environ.get("LAZYMLX_PRETRAINED", FETCHED))
    if not (path / "config.json").is_file():
        pytest.skip(f"no model in {path}: scripts/pretrained fetches one, with a network")
    return path


@pytest.fixture(scope="session")
def loaded(folder: Path) -> tuple[Model, TokenizerWrapper]:
    return load(str(folder), LazyConfig.dense())


@pytest.fixture(scope="session")
def stock(folder: Path):
    """mlx-lm's own, with the weights as `load` casts them."""
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return model
