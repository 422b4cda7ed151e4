"""A model that one thread has loaded answers on another, whatever its rotary embedding keeps."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from model_folder import write_model

from lazymlx import LazyConfig, load

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 1024}
ROPES = {
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    "longrope": {"model_type": "phi3", "rope_scaling": {"rope_type": "longrope", "type": "longrope", **LONG}},
}


@pytest.mark.parametrize("rope", ROPES)
def test_a_worker_uses_what_the_main_thread_loaded(rope: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = ROPES[rope]
    model, _ = load(str(write_model(tmp_path / rope, **changes)), LazyConfig.dense())

    def logits() -> np.ndarray:
        out = model(mx.array([[1, 2, 3]]), cache=model.make_cache())
        assert out is not None
        return np.array(out)

    with ThreadPoolExecutor(1) as worker:
        theirs = worker.submit(logits).result()
    assert np.array_equal(theirs, logits())
