"""Keep what an interrupted phase needs to go on, in one safetensors file, written atomically."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from odn.errors import DataError, MissingInputError
from odn.files import locked, write_bytes
from odn.models.stored_networks import misfit
from odn.records import parse_record
from odn.training.device import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint(Generic[T]):
    """Hold tensors by name and a record that JSON can carry."""

    tensors: dict[str, Tensor]
    record: T


def save_checkpoint(path: Path, checkpoint: Checkpoint[dict[str, Any]]) -> None:
    """Write the checkpoint: the same content gives the same bytes."""
    write_bytes(path, save(_on_cpu(checkpoint.tensors), {"odn": json.dumps(checkpoint.record, sort_keys=True)}))


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}


def load_checkpoint(path: Path, kind: type[T]) -> Checkpoint[T]:
    """Read a checkpoint whose record is of this kind.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'dvc repro' to make it")
    try:
        with safe_open(path, framework="pt") as file:
            record = parse_record(kind, (file.metadata() or {}).get("odn", ""))
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, record)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}; delete it and run 'dvc repro' again") from None


def resume(path: Path | None, kind: type[T], *, like: Mapping[str, Tensor], more: str | None = None) -> Checkpoint[T] | None:
    """Read what an interrupted phase kept, whose tensors are `like` these; None where there is nothing to go on from.

    What is damaged is left out, with a line that says so: the phase begins anew. There may be others, whose names begin with `more`.
    """
    if path is None or not path.exists():
        return None
    try:
        saved = load_checkpoint(path, kind)
    except DataError as error:
        wrong: str | None = str(error).removeprefix(f"{path} is damaged: ").partition("; delete it")[0]
    else:
        wrong = misfit(like, {name: tensor for name, tensor in saved.tensors.items() if more is None or not name.startswith(more)})
        if wrong is None:
            return saved
    sys.stderr.write(f"odn: {DataError(f'{path} is damaged: {wrong}; it is left out, and the phase begins anew')}\n")
    return None


def agreed(saved: Checkpoint[T] | None, kind: type[T], *, machine: Machine) -> Checkpoint[T] | None:
    """Return the checkpoint that the first process has read, which alone may see its file."""
    if machine.group.size == 1:
        return saved
    record = json.dumps(asdict(saved.record)).encode() if saved is not None else None  # type: ignore[call-overload]
    record = machine.group.shared_bytes(record, device=machine.device)
    tensors = machine.group.shared_bytes(save(_on_cpu(saved.tensors)) if saved is not None else None, device=machine.device)
    if record is None or tensors is None:
        return None
    return Checkpoint(load(tensors), parse_record(kind, record.decode()))


@contextlib.contextmanager
def in_progress(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Hold `path` for one run of a phase; remove it when the block ends well, unless the finished phase is worth keeping.

    A second process that wants the same phase waits for the first.
    Leftovers of the same phase under other settings are removed.
    """
    with locked(path.parent):
        for stale in path.parent.glob("*.safetensors"):
            if stale != path:
                stale.unlink()
        yield path
        if not keep:
            path.unlink(missing_ok=True)
