"""`load`: a model's folder or Hub name becomes a lazy model and its tokenizer.

mlx-lm reads the weights; it is told through its own argument `get_model_classes` to build our layers of them. What a
folder must hold is checked first, because mlx-lm's answers to a wrong one are tracebacks.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_adapters, load_model, load_tokenizer

from .config import LazyConfig
from .errors import ConfigError, ModelError
from .families import family_of
from .hub import find
from .model import Model

SCHEDULE_FILE = "lazymlx.json"  # a schedule that travels with a model: {"schedule": "8:0.5,10:0.2"}


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
) -> tuple[Model, TokenizerWrapper]:
    """Load a model that leaves tokens behind, and its tokenizer.

    Args:
        path_or_hf_repo: a local folder, or a name on the Hugging Face Hub.
        lazy: how to select tokens; None is `LazyConfig()`, with the schedule stored beside the model if there is one.
        dtype: cast the weights to this; None leaves them as they are on a GPU, and on a CPU dequantises and casts to
            float32, because quantised and 16-bit matrix products are about fifty times slower there.
        tokenizer_config, model_config, adapter_path, revision, trust_remote_code: as in `mlx_lm.load`.

    Raises:
        ModelError: the model cannot be found or read, or its architecture cannot be served lazily.
        ConfigError: the schedule does not fit the model.
    """
    folder = find(path_or_hf_repo, revision)
    check_folder(folder)
    try:
        model, config = load_model(
            folder,
            lazy=True,
            model_config=model_config,
            get_model_classes=model_classes,
            trust_remote_code=trust_remote_code,
        )
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model: {folder} could not be loaded: {_one_line(error)}") from error
    assert isinstance(model, Model)
    _settle_weights(model, adapter_path, dtype)
    model.lazy = model.resolve(with_stored_schedule(lazy or LazyConfig(), folder))
    try:
        tokenizer = load_tokenizer(folder, tokenizer_config, eos_token_ids=config.get("eos_token_id"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model: the tokenizer in {folder} could not be read: {_one_line(error)}") from error
    return model, tokenizer


def check_folder(folder: Path) -> None:
    """Refuse a folder that mlx-lm could not load, and say what it lacks."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model: {folder} has no config.json; expected a model folder as the Hub's repositories are")
    read_json(folder / "config.json")
    if not any(folder.glob("model*.safetensors")):
        if any(folder.glob("*.npz")):
            raise ModelError(
                f"model: {folder} holds its weights as .npz, a format mlx-lm no longer reads; convert the original "
                "model with mlx_lm.convert, or name a repository with safetensors"
            )
        raise ModelError(f"model: {folder} has no model*.safetensors; is the download complete?")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"model: {path} is not readable as JSON: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"model: {path} must hold a JSON object, got {type(content).__name__}")
    return content


def model_classes(config: dict[str, Any]) -> tuple[type[Model], type[Any]]:
    """Our classes for a configuration, in the form of mlx-lm's `get_model_classes`."""
    return Model, family_of(config.get("model_type"), config.get("text_config")).module.ModelArgs


def stored_schedule(folder: Path) -> Path | None:
    """The file with the schedule that was made for a model, if there is one."""
    stored = folder / SCHEDULE_FILE
    return stored if stored.is_file() else None


def with_stored_schedule(lazy: LazyConfig, folder: Path) -> LazyConfig:
    """`lazy` with the schedule that is stored beside the model in place of "auto"."""
    stored = stored_schedule(folder)
    if lazy.schedule != "auto" or stored is None:
        return lazy
    content = read_json(stored)
    if "schedule" not in content:
        raise ConfigError(f"schedule: {stored} must name a 'schedule'")
    return LazyConfig(**{**{f: getattr(lazy, f) for f in lazy.__dataclass_fields__}, **content})


def _settle_weights(model: Model, adapter_path: str | None, dtype: mx.Dtype | None) -> None:
    """Dequantise and cast where asked or where the device needs it, attach adapters, and read the weights."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    dtype = dtype or (mx.float32 if on_cpu else None)
    if dtype is not None:
        dequantize_model(model)
    if adapter_path is not None:
        try:
            load_adapters(model, adapter_path)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"adapter: {adapter_path} could not be attached: {_one_line(error)}") from error
    if dtype is not None:
        model.set_dtype(dtype)
    model.eval()
    mx.eval([w for _, w in tree_flatten(model.parameters())])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
