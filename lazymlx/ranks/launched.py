"""What a launcher says to a process that it has started: mlx.launch, mpirun, or a person who sets the variables."""

import json
import os
from pathlib import Path

RANK = ("MLX_RANK", "OMPI_COMM_WORLD_RANK")
SIZE = ("MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
HOSTS = ("MLX_HOSTFILE", "MLX_IBV_DEVICES")  # files with a list, an entry a rank


def launched_rank() -> int | None:
    """This process's rank; None if nobody launched it as one of several."""
    found = next((os.environ[name] for name in RANK if name in os.environ), "")
    return int(found) if found.isdecimal() and launched_size() != 1 else None


def launched_size() -> int | None:
    """How many ranks there are; None if it does not say."""
    found = next((os.environ[name] for name in SIZE if name in os.environ), "")
    if found.isdecimal():
        return int(found)
    lists = [_listed(os.environ[name]) for name in HOSTS if os.environ.get(name)]
    return max(len(lists[0]), 1) if lists else None


def first_address() -> str | None:
    """The address of rank 0's host, as the launcher gave it."""
    hosts, coordinator = os.environ.get("MLX_HOSTFILE"), os.environ.get("MLX_JACCL_COORDINATOR")
    if hosts and (listed := _listed(hosts)):
        return str(listed[0][0]).rpartition(":")[0]
    if coordinator:
        return coordinator.rpartition(":")[0]
    return os.environ.get("NCCL_HOST_IP")


def _listed(path: str) -> list:
    """The list in a launcher's file; empty if there is none, as of one host."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return content if isinstance(content, list) else []
