"""Write and read networks that route single images: architecture.json, weights.safetensors, routing.json, whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor

from odn.errors import MissingInputError
from odn.files import write_bytes, write_json
from odn.models.stored_networks import load_network, misfit, save_network
from odn.records import Record, damaged, read_record
from odn.routing.gated import GatedNetwork
from odn.routing.routed import Exit, RoutedNetwork

Routes = RoutedNetwork | GatedNetwork
GATES = "gates.safetensors"


@dataclass(frozen=True, kw_only=True)
class ByConfidence(Record):
    """Say at which exits images leave."""

    kind: Literal["confidence"]
    exits: tuple[Exit, ...]


@dataclass(frozen=True, kw_only=True)
class ByGates(Record):
    """Say what gates are made of, and by how much their scores are shifted."""

    kind: Literal["gate"]
    hidden: Annotated[int, Field(ge=1, le=2**16)]
    shift: float


ROUTING: Any = Annotated[ByConfidence | ByGates, Field(discriminator="kind")]


def save_routed(routes: Routes, folder: Path) -> None:
    """Write the network and its routing; equal networks give equal bytes."""
    save_network(routes.network, folder)
    if isinstance(routes, RoutedNetwork):
        exits = [{"depth": one.depth, "threshold": float(one.threshold), "temperature": float(one.temperature)} for one in routes.exits]
        write_json(folder / "routing.json", {"kind": "confidence", "exits": exits})
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in routes.gates.state_dict().items()}
    write_bytes(folder / GATES, safetensors.torch.save(tensors))
    write_json(folder / "routing.json", {"kind": "gate", "hidden": routes.hidden, "shift": routes.shift})


def load_routed(folder: Path) -> Routes:
    """Read what `save_routed` wrote, onto the CPU, in eval mode.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or they do not fit one another.
    """
    path = folder / "routing.json"
    routing: ByConfidence | ByGates = read_record(ROUTING, path, made_by="odn route")
    network = load_network(folder)
    try:
        if isinstance(routing, ByConfidence):
            return RoutedNetwork(network, routing.exits)
        with torch.device("meta"):
            shapes = GatedNetwork(network, hidden=routing.hidden)
        tensors = _read_gates(folder / GATES, like=shapes)
        made = GatedNetwork(network, hidden=routing.hidden, shift=routing.shift)
    except ValueError as error:
        raise damaged(path, str(error), made_by="odn route") from None
    made.gates.load_state_dict(tensors)
    return made.eval()


def _read_gates(path: Path, *, like: GatedNetwork) -> dict[str, Tensor]:
    """Read the gates' tensors, and hold them to those of a network of shapes alone."""
    made_by = "odn route --kind gate"
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run '{made_by}' first")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise damaged(path, " ".join(str(error).split()), made_by=made_by) from None
    wrong = misfit(like.gates.state_dict(), tensors)
    if wrong is not None:
        raise damaged(path, wrong, made_by=made_by)
    return tensors
