"""Write and read networks: architecture.json and weights.safetensors, never a pickle."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from odn.errors import DataError, MissingInputError
from odn.files import write_bytes, write_json
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, empty
from odn.records import read_record


def save_network(network: DepthNetwork, folder: Path) -> None:
    """Write `architecture.json` and `weights.safetensors`; equal networks give equal bytes."""
    write_json(folder / "architecture.json", network.architecture.to_dict())
    save_weights(network, folder / "weights.safetensors")


def save_weights(network: DepthNetwork, path: Path) -> None:
    """Write every parameter and buffer as safetensors."""
    write_bytes(path, _packed(network))


def weights_digest(network: DepthNetwork) -> str:
    """Return the hex SHA-256 of what `save_weights` writes."""
    return hashlib.sha256(_packed(network)).hexdigest()


def _packed(network: DepthNetwork) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors)


def load_network(folder: Path, *, like: DepthNetwork | None = None) -> DepthNetwork:
    """Read what `save_network` wrote, onto the CPU, in eval mode, with the heads that the weights have.

    The description is held to the weights before anything is allocated for it. `like` is a network made by the code that made the one
    that was saved, where no registered family can make it again; it stays as it is.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or the weights are not those of the architecture.
    """
    path, weights = folder / "architecture.json", folder / "weights.safetensors"
    architecture = read_record(Architecture, path, made_by="dvc repro")
    tensors = _read_weights(weights)
    try:
        if like is not None:
            architecture = like.architecture.whole.at(architecture.depth)
        network = described(architecture, tensors)
    except ValueError as error:
        raise DataError(f"{weights} is not for the network of {path}: {error}; delete both and run 'dvc repro'") from None
    if architecture.made_by.draws_itself:  # it may have buffers that no file holds
        network = empty(architecture, heads=network.head_depths)
    _fill(network, tensors, weights)
    return network.eval()


def described(architecture: Architecture, tensors: Mapping[str, Tensor]) -> DepthNetwork:
    """Return the network of these weights, of shapes alone, with the heads that they have: it takes no memory, whatever it is.

    Raises:
        ValueError: there is no such network.
    """
    heads = [int(found[1]) for name in tensors if (found := re.fullmatch(r"heads\.(\d{1,4})\.weight", name))]
    return empty(architecture, heads=heads, device="meta")


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Say which tensor is not there, or not of the shape and type that is wanted, or not wanted; None where all are right."""
    for name in sorted(wanted.keys() | found.keys()):
        asked, there = (f"{tuple(t[name].shape)} {t[name].dtype}" if name in t else "none" for t in (wanted, found))
        if asked != there:
            return f"for {name} it holds {there} where {asked} is needed"
    return None


def load_weights(network: DepthNetwork, path: Path) -> None:
    """Read what `save_weights` wrote into a network of the same architecture and heads.

    Raises:
        MissingInputError: the file is not there.
        DataError: it is damaged, or holds other tensors than the network.
    """
    _fill(network, _read_weights(path), path)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'dvc repro' to train the network first")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}; delete it and run 'dvc repro'") from None


def _fill(network: DepthNetwork, tensors: dict[str, Tensor], path: Path) -> None:
    wrong = misfit(network.state_dict(), tensors)
    if wrong is not None:
        raise DataError(f"{path} does not fit its architecture: {wrong}; delete it and run 'dvc repro'")
    if next(network.parameters()).is_meta:  # a copy: tensors that are read may be a view of the file
        network.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    else:
        network.load_state_dict(tensors)
