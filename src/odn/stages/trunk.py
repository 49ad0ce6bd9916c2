"""Read and write a trunk: all that the next depth inherits."""

from pathlib import Path

from odn.models.architecture import Architecture
from odn.models.network import empty
from odn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from odn.training.device import Machine
from odn.training.optim import Optimiser


def write_trunk(path: Path, optimiser: Optimiser) -> None:
    """Write all that the next depth inherits: weights, averaged weights, momentum."""
    record = {"architecture": optimiser.network.architecture.to_dict(), "n_averaged": optimiser.n_averaged}
    save_checkpoint(path, Checkpoint(optimiser.tensors(), record))


def read_trunk(path: Path, *, machine: Machine) -> Optimiser:
    """Read a trunk onto the machine.

    Raises:
        MissingInputError: it is not there, or it is damaged.
    """
    saved = load_checkpoint(path)
    architecture = Architecture.from_dict(saved.record["architecture"])
    heads = sorted(int(name.split(".")[2]) for name in saved.tensors if name.startswith("network.heads.") and name.endswith(".weight"))
    network = machine.holding(empty(architecture, heads=heads))
    optimiser = Optimiser.fresh(network)
    optimiser.load(saved.tensors, n_averaged=saved.record["n_averaged"])
    return optimiser
