"""Read and write a state: all that the next depth inherits."""

from dataclasses import dataclass
from pathlib import Path

from odn.errors import DataError
from odn.models.architecture import Architecture
from odn.models.network import empty
from odn.models.stored_networks import described, misfit
from odn.records import Count, Record
from odn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from odn.training.device import Machine
from odn.training.state import TrainState


@dataclass(frozen=True)
class StateRecord(Record):
    """Say which network a state is of, and for how many steps its weights were averaged."""

    architecture: Architecture
    n_averaged: Count


def write_state(path: Path, state: TrainState) -> None:
    """Write all that the next depth inherits: weights, averaged weights, momentum."""
    record = {"architecture": state.network.architecture.to_dict(), "n_averaged": state.n_averaged}
    save_checkpoint(path, Checkpoint(state.tensors(), record))


def read_state(path: Path, *, machine: Machine) -> TrainState:
    """Read a training state onto the machine.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged; nothing is allocated for a network that its tensors are not of.
    """
    saved = load_checkpoint(path, StateRecord)
    architecture = saved.record.architecture
    try:
        shapes = described(
            architecture, {name.removeprefix("network."): tensor for name, tensor in saved.tensors.items() if name.startswith("network.")}
        )
        wrong = misfit(TrainState.fresh(shapes).tensors(), saved.tensors)
    except ValueError as error:
        wrong = str(error)
    if wrong is not None:
        raise DataError(f"{path} is not of the network that it names: {wrong}; delete it and run 'dvc repro' again")
    state = TrainState.fresh(machine.to_device(empty(architecture, heads=shapes.head_depths)))
    state.load(saved.tensors, n_averaged=saved.record.n_averaged)
    return state
