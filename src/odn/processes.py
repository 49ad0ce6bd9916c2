"""Say which of several processes this one is, as torchrun tells it in the environment; torch is not imported for it."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

TRAINING = ("train", "check", "truncate")  # stages that may run in several processes

# What torchrun sets for each process.
RUN, SIZE, RANK, LOCAL_RANK, ERROR_FILE = "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK", "TORCHELASTIC_ERROR_FILE"

OWN = "odn-"  # begins the ids of runs that a stage has started: it says itself what was done, and what went wrong


def tells() -> bool:
    """Return whether this process says what was done."""
    return rank() == 0 and not os.environ.get(RUN, "").startswith(OWN)


def world_size() -> int:
    """Return how many processes torchrun started, over all nodes; 1 where it started none."""
    return _told(SIZE, otherwise=1)


def rank() -> int:
    """Return the number of this process, from 0, over all nodes; 0 is the only one that writes and tells."""
    return _told(RANK, otherwise=0)


def local_rank() -> int:
    """Return the number of this process, from 0, on its node: the GPU that it takes."""
    return _told(LOCAL_RANK, otherwise=0)


def report(lines: Sequence[str], *, lost: bool = False) -> None:
    """Leave what went wrong where torchrun looks for it, so that whoever started this process learns the reason.

    Args:
        lines: the reason, for a user to read.
        lost: the reason is that another process is gone.
    """
    if RUN in os.environ and (place := os.environ.get(ERROR_FILE)):
        content = {"message": "\n".join(lines), "timestamp": int(time.time()), "lost": lost}
        Path(place).write_text(json.dumps(content), encoding="utf-8")


def _told(name: str, *, otherwise: int) -> int:
    """Read a number of torchrun's; a variable of that name that another program set, as schedulers do, counts for nothing."""
    return int(os.environ.get(name, otherwise)) if RUN in os.environ else otherwise
