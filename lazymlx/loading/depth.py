"""Whether a checkpoint is whole: its files, and how many layers it can have, known from its tensors' names alone.

Upstream builds as many layers as config.json says before it looks at a tensor, and a billion of them take all memory.
"""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelError

NUMBER = re.compile(r"(?:^|\.)(\d{1,9})(?=\.)")
PREFIX = 8  # bytes that tell how long the header is
METADATA = "__metadata__"  # beside the tensors in it
INDEX = "model.safetensors.index.json"


def check_depth(config: dict[str, Any], folder: Path) -> None:
    """Compare the number of layers with the checkpoint's numbered modules: one of them has the last layer's number.

    Raises:
        ModelError: there are more layers than numbers, or a file has no list of its tensors.
    """
    layers = {**config, **(config.get("text_config") or {})}.get("num_hidden_layers")
    numbered = [int(number) for name in tensor_names(folder) for number in NUMBER.findall(name)]
    most = max(numbered, default=-1) + 1
    if isinstance(layers, int) and layers > most:
        raise ModelError(
            f"model: num_hidden_layers in config.json is {layers}, but the checkpoint has {most} layers at most; is "
            "the download complete, and config.json the checkpoint's own?"
        )


def missing_weights(folder: Path) -> list[str]:
    """Files of which the folder's index says that they hold its weights, if there are some of them and not all. Of a
    checkpoint that was converted the index may be the original's, and none of them is there."""
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        lacking = sorted(name for name in named if not (folder / name).exists())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []  # upstream does not read it
    return lacking if len(lacking) < len(named) else []


def tensor_names(folder: Path) -> Iterator[str]:
    """Of all tensors in a folder's safetensors files."""
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,), size = struct.unpack("<Q", file.read(PREFIX)), path.stat().st_size
                if length > size - PREFIX:
                    raise ValueError("its header is longer than the file")
                tensors = {name: of for name, of in json.loads(file.read(length)).items() if name != METADATA}
                if max((of["data_offsets"][1] for of in tensors.values()), default=0) > size - PREFIX - length:
                    raise ValueError("its end is missing")
                yield from tensors
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
            raise ModelError(
                f"model: {path} is no whole safetensors file: {error}; is the download complete?"
            ) from None
