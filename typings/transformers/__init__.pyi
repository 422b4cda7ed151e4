# Only mlx-lm imports it: for pyright it is anything, since reading all of its models takes a third of the whole check.
from typing import Any

def __getattr__(name: str) -> Any: ...
