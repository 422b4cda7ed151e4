"""Weights as people have them: quantised in every mode, with adapters, with code of their own, or broken.

The models are tiny and random; mlx-lm writes them, and its own loader says what is right.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_adapters, load_model, quantize_model, save_config, save_model
from model_folder import VOCAB, write_model
from zoo import configuration, pair

from lazymlx import load
from lazymlx.config import LazyConfig
from lazymlx.engine.model import Model
from lazymlx.errors import ConfigError, ModelError
from lazymlx.loading.load import model_classes
from lazymlx.nn.checkpoint import check_fit

WIDE = {"hidden_size": 64, "head_dim": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
MODES = {
    **{f"affine {bits}": {"bits": bits, "group_size": 64} for bits in (2, 3, 4, 5, 6, 8)},
    **{mode: {"mode": mode, "bits": None, "group_size": None} for mode in ("mxfp4", "mxfp8", "nvfp4")},
}
TOKENS = mx.array([np.random.default_rng(1).integers(VOCAB, size=12).tolist()])


def write_quantised(folder: Path, recipe: str | None = None, **how: Any) -> Path:
    """The folder that `mlx_lm.convert` would write."""
    write_model(folder, **WIDE)
    config = json.loads((folder / "config.json").read_text())
    model, _ = load_model(folder)
    predicate = None if recipe is None else mixed_quant_predicate_builder(recipe, model)
    model, config = quantize_model(model, config, quant_predicate=predicate, **how)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    return folder


def assert_loads_as_mlx_lms(folder: Path) -> Model:
    """Packed as they are, and unpacked as `load` has them on a CPU, the weights give mlx-lm's logits."""
    theirs, _ = load_model(folder)
    packed, _ = load_model(folder, get_model_classes=model_classes)
    assert isinstance(packed, Model)
    assert sum("Quantized" in type(m).__name__ for m in packed.modules()) > 12
    np.testing.assert_allclose(packed(TOKENS), theirs(TOKENS), atol=1e-5)
    theirs = dequantize_model(theirs)
    theirs.set_dtype(mx.float32)
    ours, _ = load(str(folder), LazyConfig.dense())
    np.testing.assert_allclose(ours(TOKENS), theirs(TOKENS), atol=1e-4)
    return packed


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_quantisation(tmp_path, mode):
    assert_loads_as_mlx_lms(write_quantised(tmp_path, **MODES[mode]))


@pytest.mark.parametrize("recipe", QUANT_RECIPES)
def test_mixed_recipes(tmp_path, recipe):
    folder = write_quantised(tmp_path, recipe, bits=4, group_size=64)
    packed = assert_loads_as_mlx_lms(folder)
    assert len({m.bits for m in packed.modules() if isinstance(m, nn.QuantizedLinear)}) == 2


def test_a_lazy_answer_from_packed_weights(tmp_path):
    """Tokens are left behind and come back with quantised layers as with others."""
    model, _ = load_model(write_quantised(tmp_path, bits=4, group_size=64), get_model_classes=model_classes)
    cache = model.make_cache(LazyConfig("3:0.3", window=2, recent=2, min_tokens=0, round_to=1, revive=2))
    cache[0].expect(TOKENS.size)
    model(TOKENS[:, :-1], cache=cache)
    logits = model(TOKENS[:, -1:], cache=cache)
    for _ in range(4):
        logits = model(mx.argmax(logits[:, -1:], axis=-1), cache=cache)
    assert np.isfinite(np.array(logits)).all()
    assert int(cache[0].turn.revived) > 0


def test_a_scale_that_experts_share_is_not_dropped(tmp_path):
    """It could not be unpacked for the CPU."""
    name = "qwen3_moe"
    write_model(tmp_path)
    theirs, config = pair(name)[0], configuration(name)
    twin = type(theirs)(theirs.args)
    twin.load_weights(tree_flatten(theirs.parameters()))
    twin, config = quantize_model(twin, config, 16, 4, "nvfp4", global_scale=True, quant_predicate=only_experts)
    save_model(tmp_path, twin)
    save_config(config, tmp_path / "config.json")
    with pytest.raises(ModelError, match="experts share a scale, which cannot be unpacked"):
        load(str(tmp_path))


def only_experts(path: str, module: nn.Module) -> bool:
    return "switch_mlp.gate" in path or "switch_mlp.up" in path


# --- adapters -------------------------------------------------------------------------------------


def write_adapter(folder: Path, model: nn.Module, kind: str, **settings: Any) -> Path:
    """An adapter as `mlx_lm.lora` saves one, with random weights."""
    folder.mkdir()
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, **settings}
    linear_to_lora_layers(model, 3, parameters, use_dora=kind == "dora")
    rng = np.random.default_rng(3)
    trained = {
        name: mx.array(rng.normal(0, 0.2, w.shape).astype(np.float32)) + (w if name.endswith(".m") else 0)
        for name, w in tree_flatten(model.parameters())
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")
    }
    assert trained
    mx.save_safetensors(str(folder / "adapters.safetensors"), trained)
    config = {"fine_tune_type": kind, "num_layers": 3, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", ["lora", "dora", "qlora", "chosen layers"])
def test_adapters(tmp_path, kind):
    """Of a float base, and of a quantised one; on all projections, or on those that were chosen."""
    base = tmp_path / "base"
    if kind == "qlora":
        write_quantised(base, bits=4, group_size=64)
    else:
        write_model(base, **WIDE)
    keys = {"keys": ["self_attn.q_proj", "self_attn.v_proj"]} if kind == "chosen layers" else {}
    adapter = write_adapter(tmp_path / "adapter", load_model(base)[0], "dora" if kind == "dora" else "lora", **keys)
    theirs = dequantize_model(load_model(base)[0])
    bare = theirs(TOKENS)
    theirs = load_adapters(theirs, str(adapter))
    theirs.set_dtype(mx.float32)
    theirs.eval()
    ours, _ = load(str(base), LazyConfig.dense(), adapter_path=str(adapter))
    np.testing.assert_allclose(ours(TOKENS), theirs(TOKENS), atol=1e-4)
    assert np.abs(np.array(ours(TOKENS) - bare)).max() > 0.1


FOREIGN = {
    "PEFT's": {"peft_type": "LORA", "r": 8},
    "a list": [],
    "wrong types": {"num_layers": "x", "lora_parameters": {}},
}


@pytest.mark.parametrize("fault", ["no folder", "no weights", "other shapes", *FOREIGN])
def test_a_wrong_adapter_is_refused(tmp_path, fault):
    base = write_model(tmp_path / "base", **WIDE)
    if fault != "no folder":
        other = write_model(tmp_path / "other", **{**WIDE, "hidden_size": 128}) if fault == "other shapes" else base
        adapter = write_adapter(tmp_path / "adapter", load_model(other)[0], "lora")
        if fault == "no weights":
            (adapter / "adapters.safetensors").unlink()
        if fault in FOREIGN:
            (adapter / "adapter_config.json").write_text(json.dumps(FOREIGN[fault]))
    with pytest.raises(ModelError, match=r"^adapter: .*adapter could not be attached, expected .*: \S"):
        load(str(base), adapter_path=str(tmp_path / "adapter"))


# --- checkpoints that do not fit --------------------------------------------------------------------


def rewrite(folder: Path, change) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), change(dict(weights)))


FAULTS = {
    "missing": (
        lambda w: {k: v for k, v in w.items() if "down_proj" not in k},
        r"6 missing: model.layers.0.mlp.down_proj.weight, model.layers.1.mlp.\S+ model.layers.2.mlp.\S+ \.\.\.\. ",
    ),
    "unknown": (
        lambda w: {**w, "model.layers.6.extra": mx.ones(3), "a": mx.ones(1)},
        r"2 unknown: a, model.layers.6.extra\. ",
    ),
    "misfitting": (
        lambda w: {**w, "model.norm.weight": mx.ones(7)},
        r"1 of another shape: model.norm.weight \(expected \(32,\), got \(7,\)\)\. ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tensors_that_do_not_fit_are_named(tmp_path, fault):
    folder = write_model(tmp_path)
    change, message = FAULTS[fault]
    rewrite(folder, change)
    with pytest.raises(ModelError, match=f"does not fit its configuration; tensors {message}"):
        load(str(folder))


def test_all_faults_are_told_at_once():
    expected = {"a": mx.ones(1), "b": mx.ones(2)}
    with pytest.raises(ModelError, match=r"1 missing: b; 1 unknown: c; 1 of another shape: a \(expected"):
        check_fit(expected, {"a": mx.ones(3), "c": mx.ones(1)})
    check_fit(expected, dict(expected))


def test_a_truncated_file_is_refused(tmp_path):
    folder = write_model(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is no whole safetensors file: its end is missing"):
        load(str(folder))


def test_a_configuration_that_lacks_an_entry_is_refused(tmp_path):
    folder = write_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="could not be loaded: .*hidden_size"):
        load(str(folder))


# --- code that comes with a model -------------------------------------------------------------------

OWN = """
from mlx_lm.models.llama import Model, ModelArgs
"""
BUILT_ON_OURS = """
from mlx_lm.models.llama import ModelArgs
from lazymlx.nn.families import FAMILIES
from lazymlx.engine.model import Model as Lazy

class Model(Lazy):
    def __init__(self, args):
        super().__init__(args, FAMILIES["llama"])
"""


def test_code_that_comes_with_a_model_runs_only_if_it_is_trusted(tmp_path):
    folder = write_model(tmp_path, model_type="homemade", model_file="own.py")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{BUILT_ON_OURS}")
    with pytest.raises(ModelError, match="custom module.*trust_remote_code=True"):
        load(str(folder))
    assert not (tmp_path / "ran").exists()
    model, _ = load(str(folder), trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert model.model_type == "homemade"
    assert model(TOKENS).shape == (1, 12, VOCAB)


def test_nobody_is_asked_whether_to_run_code(tmp_path, monkeypatch):
    """transformers would, where it is not told; the answer could be the first line of a piped prompt."""
    folder = write_model(tmp_path, model_type="internlm2", bias=False, auto_map={"AutoConfig": "own.Config"})
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("somebody was asked"))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_trusted_code_that_cannot_be_lazy_is_refused(tmp_path):
    folder = write_model(tmp_path, model_file="own.py")
    (folder / "own.py").write_text(OWN)
    with pytest.raises(ModelError, match=r"own architecture.*'own.py'.*lazymlx\.engine\.model\.Model"):
        load(str(folder), trust_remote_code=True)


# --- families from the disk -------------------------------------------------------------------------


def write_family(folder: Path, name: str, change=dict) -> Path:
    """A checkpoint of a family, as mlx-lm would save it, then changed."""
    theirs, _ = pair(name)
    write_model(folder)  # for the tokenizer
    weights = change(dict(tree_flatten(theirs.parameters())))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(configuration(name)))
    return folder


def by_expert(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Experts in tensors of their own, as the original checkpoints have them."""
    apart = {}
    for name, w in weights.items():
        if ".switch_mlp." in name:
            apart |= {name.replace("switch_mlp", f"experts.{e}"): expert for e, expert in enumerate(w)}
        else:
            apart[name] = w
    return apart


def with_eyes(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    return {**weights, "vision_tower.patch.weight": mx.ones((2, 2)), "multi_modal_projector.weight": mx.ones((2, 2))}


CHECKPOINTS = {
    "exaone": dict,
    "gpt_oss": dict,
    "olmo2": dict,
    "qwen3_moe": by_expert,
    "olmoe": by_expert,
    "gemma3": with_eyes,
    "mistral3": with_eyes,
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_families_load_from_the_disk(tmp_path, name):
    """Also from checkpoints that upstream has to prepare."""
    folder = write_family(tmp_path, name, CHECKPOINTS[name])
    model, _ = load(str(folder), LazyConfig("3:0.5"))
    tokens = mx.array([list(range(20))])
    np.testing.assert_allclose(model(tokens), pair(name)[0](tokens), atol=1e-4)
    assert str(model.make_cache()[0].config.schedule) == "3:0.5"


def test_gemma_3_without_a_head_uses_its_embeddings(tmp_path):
    folder = write_family(tmp_path, "gemma3_text", lambda w: {k: v for k, v in w.items() if "lm_head" not in k})
    theirs, _ = load_model(folder)
    ours, _ = load(str(folder))
    tokens = mx.array([list(range(20))])
    np.testing.assert_allclose(ours(tokens), theirs(tokens), atol=1e-4)


def test_a_schedule_that_does_not_fit_the_windows_is_refused_at_load(tmp_path):
    folder = write_family(tmp_path, "llama, windows")
    with pytest.raises(ConfigError, match="can be cut behind each of the layers that see everything"):
        load(str(folder), LazyConfig("2:0.5"))
