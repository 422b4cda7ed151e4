"""A model on the disk: tiny random weights, and the embedded model's tokenizer, as a folder that `load` takes."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from upstream import classes_of

from lazymlx.demo import MODEL

HARD_MODEL = (
    Path(__file__).parents[1] / "data" / "model-12-layers"
)  # finds evidence late: cut it at layer 8, not before

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 8192,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 5,
}


def write_model(folder: Path, **changes: Any) -> Path:
    """A 6-layer model in `folder`, a Llama if not said otherwise; `changes` are entries of config.json. Returns it."""
    config = {**CONFIG, **changes}
    model_class, args_class = classes_of({**config, "model_type": "llama"} if "model_file" in config else config)
    model, rng = model_class(args_class.from_dict(config)), np.random.default_rng(0)
    weights = {
        name: mx.array(rng.normal(1.0 if "norm" in name else 0.0, 0.3, size=w.shape).astype(np.float32))
        for name, w in sorted(tree_flatten(model.parameters()))
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    for name in TOKENIZER_FILES:
        shutil.copy(MODEL / name, folder)
    return folder
