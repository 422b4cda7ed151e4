"""A model on the disk: tiny random weights, and the embedded model's tokenizer in small, as a folder for `load`."""

import json
import shutil
from functools import cache
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

VOCAB = 2048  # tokens; those of the embedded model's tokenizer that it found first

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
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
    (folder / "tokenizer.json").write_text(first_tokens(), encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder)
    return folder


@cache
def first_tokens() -> str:
    """The embedded tokenizer without its rarer words: reading all 8192 takes longer than most answers here."""
    content = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = {token: number for token, number in content["model"]["vocab"].items() if number < VOCAB}
    merges = [pair for pair in content["model"]["merges"] if "".join(pair) in vocab]
    content["model"] |= {"vocab": vocab, "merges": merges}
    return json.dumps(content)
