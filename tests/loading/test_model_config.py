"""config.json as people have it: wrong in some entry, or spelled as newer transformers spell it."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model
from model_folder import CONFIG, VOCAB, write_model

from lazymlx import LazyConfig, load
from lazymlx.errors import ModelError, TooLargeError
from lazymlx.loading.load import model_classes
from lazymlx.loading.model_config import max_positions, respelled

SIZE = "must be a whole number of at least 1, got "
WRONG = [
    ("hidden_size", None, SIZE + "None"),
    ("hidden_size", "32", SIZE + "'32'"),
    ("num_hidden_layers", -1, SIZE + "-1"),
    ("vocab_size", 0, SIZE + "0"),
    ("num_attention_heads", 4.0, SIZE + "4.0"),
    ("num_key_value_heads", True, SIZE + "True"),
    ("intermediate_size", [48], SIZE + r"\[48\]"),
    ("sliding_window", "x", SIZE + "'x'"),
    ("num_key_value_heads", 3, "must be a divisor of num_attention_heads, 4, got 3"),
    ("rms_norm_eps", float("nan"), "must be a number above 0, got nan"),
    ("rope_theta", 0, "must be a number above 0, got 0"),
    ("rope_theta", "x", "must be a number above 0, got 'x'"),
    ("rope_scaling", "linear", "must be an object, got 'linear'"),
    ("text_config", [], r"must be an object, got \[\]"),
    ("model_type", ["llama"], r"must be text, got \['llama'\]"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_entry_is_named(name: str, value: Any, message: str):
    with pytest.raises(ModelError, match=f"^model: {name} in config.json {message}; is the file the checkpoint's own"):
        model_classes({**CONFIG, name: value})


def test_a_wrong_entry_of_a_language_model_inside_is_named():
    with pytest.raises(ModelError, match="^model: hidden_size in config.json "):
        model_classes({"model_type": "llava", "text_config": {**CONFIG, "hidden_size": -1}})


@pytest.mark.parametrize("name", ["num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window"])
def test_what_may_be_null_is_not_refused(name: str):
    model_classes({**CONFIG, name: None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "ZeroDivisionError: division by zero"),
        ({"rope_scaling": {"type": "yarn"}}, "KeyError: 'factor'"),
        ({"quantization": "4bit"}, "TypeError: string indices must be integers"),
        ({"quantization_config": {"quant_method": "gptq"}}, "UnboundLocalError: "),
    ],
)
def test_whatever_upstream_stumbles_over_is_an_error_of_ours(tmp_path: Path, changes: dict, message: str):
    folder = write_model(tmp_path)
    edit(folder, **changes)
    with pytest.raises(ModelError, match=f"could not be loaded: {message}"):
        load(str(folder))


def test_more_layers_than_the_checkpoint_has_are_not_built(tmp_path: Path):
    folder = write_model(tmp_path)
    for layers in (7, 10**9):
        edit(folder, num_hidden_layers=layers)
        with pytest.raises(ModelError, match=f"num_hidden_layers in config.json is {layers}, but .* 6 layers at most"):
            load(str(folder))


@pytest.mark.parametrize("content", [b"\xff" * 8, b"\x01" + b"\0" * 7 + b"1", b"\x02" + b"\0" * 7 + b"{}"])
def test_a_file_without_a_list_of_tensors_is_a_sentence(tmp_path: Path, content: bytes):
    folder = write_model(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="no whole safetensors file|0 layers at most"):
        load(str(folder))


def edit(folder: Path, *dropped: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in dropped}))


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def test_a_newer_configuration_gives_the_older_ones_logits(tmp_path: Path):
    """transformers 5 moves both entries of the rotary embedding into one; mlx-lm's Llama does not look there."""
    tokens = mx.array([np.random.default_rng(2).integers(VOCAB, size=40).tolist()])
    folder = write_model(tmp_path, rope_theta=500000.0, rope_scaling=LLAMA3)
    expected = load_model(folder)[0](tokens)
    edit(folder, "rope_theta", "rope_scaling", rope_parameters={**LLAMA3, "rope_theta": 500000.0})
    ours, _ = load(str(folder), LazyConfig.dense())
    np.testing.assert_allclose(ours(tokens), expected, atol=1e-5)
    assert mx.abs(load_model(folder)[0](tokens) - expected).max() > 0.1


def test_where_newer_configurations_keep_what_upstream_looks_for():
    plain = {"rope_theta": 1e6, "rope_type": "default", "partial_rotary_factor": 0.5}
    assert respelled({"rope_parameters": plain}) == {"rope_theta": 1e6, "partial_rotary_factor": 0.5}
    assert respelled({"rope_parameters": plain, "rope_theta": 5.0}) == {"partial_rotary_factor": 0.5}
    long = {"rope_type": "longrope", "long_factor": [1.0], "original_max_position_embeddings": 64}
    assert respelled({"rope_parameters": long}) == {
        "rope_scaling": {**long, "type": "longrope"},
        "original_max_position_embeddings": 64,
    }
    by_kind = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert respelled({"text_config": {"hidden_size": 8, "rope_parameters": by_kind}}) == {
        "text_config": {
            "hidden_size": 8,
            "rope_parameters": by_kind,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "linear", **by_kind["full_attention"]},
            "rope_local_base_freq": 1e4,
        }
    }
    assert respelled({"rope_theta": 1e4}) == {}
    assert respelled({"num_local_experts": 4}) == {"num_experts": 4}


def test_positions():
    assert max_positions({"max_position_embeddings": 512}) == 512
    assert max_positions({"text_config": {"max_position_embeddings": 512}}) == 512
    assert max_positions({"text_config": {}}) is None


# upstream's configurations of these do not keep the number of positions, or keep the language model's inside
APART = {
    "cohere": {"layer_norm_eps": 1e-5},
    "gemma2": {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "mistral3": {"text_config": {**CONFIG, "max_position_embeddings": 4096}},
}


@pytest.mark.parametrize("kind", APART)
def test_the_command_line_serves_every_family(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str):
    from lazymlx.cli.main import main

    folder = write_model(tmp_path / "model", model_type=kind, max_position_embeddings=16, **APART[kind])
    sampled = ["--temp", "1", "--top-k", "5"]
    assert main(["generate", "--model", str(folder), "-p", "The keeper " * 20, "-m", "3", *sampled]) == 0
    assert "more than the model's 16 positions" in capsys.readouterr().err
    assert main(["generate", "--model", str(folder), "--temp", "1", "--top-k", str(VOCAB)]) == 2
    assert f"below the vocabulary's {VOCAB} tokens" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[" * 100_000, '{"vocab_size": ' + "9" * 5_000 + "}"], ids=["nested", "long"])
def test_json_that_python_does_not_take_is_a_sentence(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match="config.json is not readable as JSON"):
        load(str(tmp_path))


def test_weights_that_the_device_has_no_room_for_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*given: Any) -> None:
        raise RuntimeError("[malloc] Unable to allocate 123 bytes.")

    monkeypatch.setattr("lazymlx.loading.load.shard", full)
    with pytest.raises(TooLargeError, match="^memory: the device has no room for the weights in .*; close other"):
        load(str(write_model(tmp_path)))
