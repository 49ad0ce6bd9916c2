"""Keep what an interrupted phase needs to go on, in one safetensors file, written atomically."""

import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from odn.errors import MissingInputError
from odn.files import write_bytes
from odn.sanitize import sanitized


@dataclass(frozen=True)
class Checkpoint:
    """Hold tensors by name and a record that JSON can carry."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint: the same content gives the same bytes."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
    write_bytes(path, save(tensors, {"odn": json.dumps(checkpoint.record, sort_keys=True)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        MissingInputError: it is not there, or it is damaged.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'dvc repro' to make it")
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["odn"]))  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MissingInputError(f"{path} is damaged ({error}); delete it and run 'dvc repro' again") from None


@contextlib.contextmanager
def in_progress(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Hold `path` for one run of a phase; remove it when the block ends well, unless the finished phase is worth keeping.

    A second process that wants the same phase (a `make repro` after its predecessor's shell was killed) waits for the first.
    Leftovers of the same phase under other settings are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"odn: waiting for another process that works in {sanitized(path.parent)}\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in path.parent.glob("*.safetensors"):
            if stale != path:
                stale.unlink()
        yield path
        if not keep:
            path.unlink(missing_ok=True)
