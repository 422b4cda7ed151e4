"""How many layers a checkpoint can have, known from its tensors' names alone.

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


def tensor_names(folder: Path) -> Iterator[str]:
    """Of all tensors in a folder's safetensors files."""
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(PREFIX))
                if length > path.stat().st_size - PREFIX:
                    raise ValueError("its header is longer than the file")
                yield from json.loads(file.read(length))
        except (OSError, ValueError, TypeError, RecursionError, struct.error) as error:
            raise ModelError(
                f"model: {path} is no whole safetensors file: {error}; is the download complete?"
            ) from None
