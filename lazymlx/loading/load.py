"""`load`: a model's folder or Hub name becomes a lazy model and its tokenizer.

mlx-lm reads the weights; it is asked through its own argument `get_model_classes` to build our layers of them. What a
folder must hold is checked first, because mlx-lm's answers to a wrong one are tracebacks.
"""

import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_adapters, load_model, load_tokenizer

from ..config import LazyConfig
from ..costs.full import is_full
from ..engine.model import Model
from ..errors import ConfigError, ModelError, TooLargeError
from ..nn.families import family_of
from ..nn.maps import Maps
from ..nn.sharding import shard
from ..ranks.group import ALONE, Ranks
from .alike import check_alike
from .depth import INDEX, check_depth, missing_weights
from .hub import find
from .model_config import check_sizes, check_types, max_positions, respelled
from .rhythm import in_rhythm, on_metal
from .stored import StoredSchedule, find_stored, read_stored, stale
from .warm import warm_once

log = logging.getLogger("lazymlx")  # what the user had better know; the command line shows it

SHORTEST_WEIGHTS = 8  # bytes: a safetensors file begins with the length of its header
NO_LIMIT = 2**31  # tokens that a tokenizer takes: what is too long for the model is for us to say


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
    calibration: str | Path | None = None,
    warm: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[Model, TokenizerWrapper]:
    """Load a model that leaves tokens behind, and its tokenizer.

    Args:
        path_or_hf_repo: a local folder, or a name on the Hugging Face Hub.
        lazy: how to select tokens; None is `LazyConfig()`. Its schedule "auto" is the one that was calibrated for the
            model, or that lies in its folder as lazymlx.json, or else a cautious preset.
        dtype: cast the weights to this; None leaves them as they are on a GPU, and on a CPU dequantises and casts to
            float32, because quantised and 16-bit matrix products are about fifty times slower there.
        fixed: fields of `lazy` that a stored schedule does not change, even if they have their defaults.
        calibration: a file or a folder that `lazymlx calibrate --out` has made, in place of the one that is stored for
            the model. Maps that lie beside it are what the model looks ahead with.
        warm: compile kernels now, on a GPU some seconds, and not while somebody waits for the first answer. Sessions do
            that too, once a model.
        ranks: over which to split the model, as `ranks.join` finds them; each loads it, from a folder of its own.
        tokenizer_config, model_config, adapter_path, revision, trust_remote_code: as in `mlx_lm.load`.

    Raises:
        ModelError: the model cannot be found or read, or its architecture cannot be served lazily.
        ConfigError: the schedule does not fit the model, the calibration is another model's, or looking ahead is asked
            for without maps.
        TooLargeError: the device has no room for the weights.
        MapsError: the maps are damaged, or those of another model.
    """
    folder = find(path_or_hf_repo, revision)
    config = {**checked_config(folder), **(model_config or {})}
    check_types(config)
    check_depth(config, folder)
    check_alike(ranks, folder, adapter_path)
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
    try:
        _settle_weights(model, adapter_path, dtype, ranks)
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise TooLargeError(
            f"memory: the device has no room for the weights in {folder}; close other programs, or use a smaller "
            "model, or one of fewer bits"
        ) from error
    model.max_positions = max_positions(config)
    if calibration is None:
        stored = _noted(find_stored(folder), folder)
    else:
        stored = read_stored(Path(calibration), folder, adapter_path)
    scheduled = model.resolve(_scheduled(lazy or LazyConfig(), stored, fixed))
    model.lazy = in_rhythm(scheduled, model, on_metal(), fixed)
    _look_with_stored(model, stored, asked="lookahead" in fixed and model.lazy.lookahead > 0)
    settled = {"trust_remote_code": trust_remote_code, "model_max_length": NO_LIMIT}  # left open, they ask and warn
    tokenizer_config = {**settled, **(tokenizer_config or {})}
    try:
        tokenizer = load_tokenizer(folder, tokenizer_config, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # tokenizers raises nothing more particular
        raise ModelError(f"model: the tokenizer in {folder} could not be read: {_one_line(error)}") from error
    if warm:
        warm_once(model)
    return model, tokenizer


def checked_config(folder: Path) -> dict[str, Any]:
    """Refuse a folder that mlx-lm could not load, and say what it lacks. Returns its configuration."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model: {folder} has no config.json; expected a model folder as the Hub's repositories are")
    config = read_json(folder / "config.json")
    weights = sorted(folder.glob("model*.safetensors"))
    for path in weights:
        if not path.is_file() or path.stat().st_size < SHORTEST_WEIGHTS:
            raise ModelError(f"model: {path} is empty, cut off, or a link to nothing; is the download complete?")
    lacking = missing_weights(folder)
    if lacking:
        raise ModelError(
            f"model: {folder} has no {lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}, which its "
            f"{INDEX} names; is the download complete?"
        )
    if not weights:
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
    check_types(config)
    text_config = config.get("text_config")
    family = family_of(config.get("model_type"), text_config)
    check_sizes(config)
    check_sizes(text_config or {})
    return Model, family.module.ModelArgs


def _noted(stored: StoredSchedule | None, folder: Path) -> StoredSchedule | None:
    """What was found for a model; a calibration that is passed over is named."""
    if path := stale(folder):
        log.warning(
            "%s was calibrated for another model of this name and is not used; calibrate this one with "
            "'lazymlx calibrate'",
            path,
        )
    return stored


def _scheduled(lazy: LazyConfig, stored: StoredSchedule | None, fixed: Collection[str]) -> LazyConfig:
    """`lazy` with a stored schedule in place of "auto"; what was calibrated is named."""
    if lazy.schedule != "auto" or stored is None:
        return lazy
    lazy = stored.applied(lazy, fixed)
    if stored.own:
        log.info("schedule %s, as calibrated in %s", lazy.schedule, stored.path)
    return lazy


def _look_with_stored(model: Model, stored: StoredSchedule | None, asked: bool) -> None:
    """Give the model the maps that were stored for it.

    Args:
        asked: looking ahead was asked for, and is not to be left out silently.
    """
    if stored is not None and stored.maps is not None:
        model.look_with(Maps.load(stored.maps, model, stored.fingerprint))
    known = model.engine.maps.cuts if model.engine.maps is not None else {}
    if asked and model.lazy.cuts and not all(cut.layer in known for cut in model.lazy.cuts):
        have = f"maps for the cuts at {', '.join(map(str, known))} alone" if known else "no maps"
        raise ConfigError(
            f"lookahead: {have} are stored for this model, and its schedule is {model.lazy.schedule}; "
            "'lazymlx calibrate' fits them, or leave the flag out"
        )


def _settle_weights(model: Model, adapter_path: str | None, dtype: mx.Dtype | None, ranks: Ranks) -> None:
    """Dequantise and cast where asked or where the device needs it, attach adapters, and read this rank's weights."""
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
    shard(model, ranks)
    model.join()
    mx.eval(model)  # with what parameters() leaves out, as ropes' frequencies: left lazy, they are this thread's alone


def _one_line(error: Exception) -> str:
    """What an error says, with its kind where that is a part of it."""
    said = " ".join(str(error).split())
    told = said and isinstance(error, ValueError | RuntimeError | OSError)
    return said if told else f"{type(error).__name__}: {said}".removesuffix(": ")
