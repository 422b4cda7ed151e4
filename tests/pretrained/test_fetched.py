"""Without a model the other tests of this folder are not even collected: one line says so, and what to run."""

import os
from pathlib import Path

import pytest


def test_there_is_a_model_that_others_have_trained(folder: Path) -> None:
    if not (folder / "config.json").is_file() and "LAZYMLX_PRETRAINED" not in os.environ:
        pytest.skip("the tests of tests/pretrained: run scripts/pretrained first, which fetches a model (93 MB)")
    assert (folder / "config.json").is_file(), f"LAZYMLX_PRETRAINED names {folder}, where no model is"
