"""`load`: a model's folder or Hub name becomes a lazy model and its tokenizer.

mlx-lm reads the weights; it is told through its own argument `get_model_classes` to build our layers of them. What a
folder must hold is checked first, because mlx-lm's answers to a wrong one are tracebacks.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_adapters, load_model, load_tokenizer

from ..config import LazyConfig
from ..engine.model import Model
from ..errors import ModelError
from ..nn.families import family_of
from .hub import find
from .model_config import check_kinds, check_sizes, max_positions, respelled
from .stored import find_stored, is_stale, user_file

SHORTEST_WEIGHTS = 8  # bytes: a safetensors file begins with the length of its header


def load(
    path_or_hf_repo: str,
    lazy: LazyConfig | None = None,
    *,
    tokenizer_config: dict[str, Any] | None = None,
    model_config: dict[str, Any] | None = None,
    adapter_path: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: mx.Dtype | None = None,
    fixed: Collection[str] = (),
) -> tuple[Model, TokenizerWrapper]:
    """Load a model that leaves tokens behind, and its tokenizer.

    Args:
        path_or_hf_repo: a local folder, or a name on the Hugging Face Hub.
        lazy: how to select tokens; None is `LazyConfig()`. Its schedule "auto" is the one that was calibrated for the
            model, or that lies in its folder as lazymlx.json, or else a cautious preset.
        dtype: cast the weights to this; None leaves them as they are on a GPU, and on a CPU dequantises and casts to
            float32, because quantised and 16-bit matrix products are about fifty times slower there.
        fixed: fields of `lazy` that a stored schedule does not change, even if they have their defaults.
        tokenizer_config, model_config, adapter_path, revision, trust_remote_code: as in `mlx_lm.load`.

    Raises:
        ModelError: the model cannot be found or read, or its architecture cannot be served lazily.
        ConfigError: the schedule does not fit the model.
    """
    folder = find(path_or_hf_repo, revision)
    config = {**check_folder(folder), **(model_config or {})}
    check_kinds(config)
    try:
        model, config = load_model(
            folder,
            lazy=True,
            model_config={**(model_config or {}), **respelled(config)},
            get_model_classes=model_classes,
            trust_remote_code=trust_remote_code,
        )
    except ModelError:
        raise
    except Exception as error:  # upstream checks little of a folder, and may stumble over the rest in any way
        raise ModelError(f"model: {folder} could not be loaded: {_one_line(error)}") from error
    if not isinstance(model, Model):
        raise ModelError(
            f"model: {folder} comes with its own architecture, {config.get('model_file')!r}, which is not built on "
            "lazymlx.engine.model.Model and so cannot leave tokens behind; use it with mlx_lm"
        )
    _settle_weights(model, adapter_path, dtype)
    model.max_positions = max_positions(config)
    model.lazy = model.resolve(with_stored_schedule(lazy or LazyConfig(), folder, fixed))
    tokenizer_config = {"trust_remote_code": trust_remote_code, **(tokenizer_config or {})}  # left open, it would ask
    try:
        tokenizer = load_tokenizer(folder, tokenizer_config, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # tokenizers raises nothing more particular
        raise ModelError(f"model: the tokenizer in {folder} could not be read: {_one_line(error)}") from error
    return model, tokenizer


def check_folder(folder: Path) -> dict[str, Any]:
    """Refuse a folder that mlx-lm could not load, and say what it lacks. Returns its configuration."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model: {folder} has no config.json; expected a model folder as the Hub's repositories are")
    config = read_json(folder / "config.json")
    for path in folder.glob("model*.safetensors"):
        if path.stat().st_size < SHORTEST_WEIGHTS:
            raise ModelError(f"model: {path} is empty or cut off; is the download complete?")
    if not any(folder.glob("model*.safetensors")):
        if any(folder.glob("*.npz")):
            raise ModelError(
                f"model: {folder} holds its weights as .npz, a format mlx-lm no longer reads; convert the original "
                "model with mlx_lm.convert, or name a repository with safetensors"
            )
        raise ModelError(
            f"model: {folder} has no model*.safetensors; is the download complete? (Early repositories hold weights in "
            "other formats, which mlx-lm no longer reads: convert the original model with mlx_lm.convert)"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last two also of long numbers and of deep nesting
        raise ModelError(f"model: {path} is not readable as JSON: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"model: {path} must hold a JSON object, got {type(content).__name__}")
    return content


def model_classes(config: dict[str, Any]) -> tuple[type[Model], type[Any]]:
    """Our classes for a configuration, in the form of mlx-lm's `get_model_classes`.

    Raises:
        ModelError: its architecture is not served, or its sizes are none.
    """
    check_kinds(config)
    text_config = config.get("text_config")
    family = family_of(config.get("model_type"), text_config)
    check_sizes(config)
    check_sizes(text_config or {})
    return Model, family.module.ModelArgs


def with_stored_schedule(lazy: LazyConfig, folder: Path, fixed: Collection[str] = ()) -> LazyConfig:
    """`lazy` with the schedule that is stored for the model in place of "auto"; what was calibrated is named."""
    if lazy.schedule != "auto":
        return lazy
    if is_stale(folder):
        print(
            f"lazymlx: {user_file(folder)} was calibrated for another model of this name and is not used; "
            "calibrate this one with 'lazymlx calibrate'",
            file=sys.stderr,
        )
    stored = find_stored(folder)
    if stored is None:
        return lazy
    lazy = stored.applied(lazy, fixed)
    if stored.own:
        print(f"lazymlx: schedule {lazy.schedule}, as calibrated in {stored.path}", file=sys.stderr)
    return lazy


def _settle_weights(model: Model, adapter_path: str | None, dtype: mx.Dtype | None) -> None:
    """Dequantise and cast where asked or where the device needs it, attach adapters, and read the weights."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    dtype = dtype or (mx.float32 if on_cpu else None)
    if dtype is not None:
        if any("global_scale" in module for module in model.modules()):  # mlx-lm's unpacking would leave it out
            raise ModelError("model: its experts share a scale, which cannot be unpacked; use it on a GPU, as it is")
        dequantize_model(model)
    if adapter_path is not None:
        try:
            load_adapters(model, adapter_path)
        except Exception as error:  # upstream reads the adapter's configuration unchecked
            raise ModelError(
                f"adapter: {adapter_path} could not be attached, expected a folder as mlx_lm.lora saves it: "
                f"{_one_line(error)}"
            ) from error
    if dtype is not None:
        model.set_dtype(dtype)
    model.eval()
    model.join()
    mx.eval(model)  # with what parameters() leaves out, as ropes' frequencies: left lazy, they are this thread's alone


def _one_line(error: Exception) -> str:
    """What an error says, with its kind where that is a part of it."""
    said = " ".join(str(error).split())
    told = said and isinstance(error, ValueError | RuntimeError | OSError)
    return said if told else f"{type(error).__name__}: {said}".removesuffix(": ")
