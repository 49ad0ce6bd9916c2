"""Write and read networks that route single images: architecture.json, weights.safetensors, routing.json, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from odn.errors import DataError, MissingInputError
from odn.files import write_bytes, write_json
from odn.models.gated import GatedNetwork
from odn.models.network import load_network, save_network
from odn.models.routed import Exit, RoutedNetwork

Routes = RoutedNetwork | GatedNetwork
GATES = "gates.safetensors"


def save_routed(routes: Routes, folder: Path) -> None:
    """Write the network and its routing; equal networks give equal bytes."""
    save_network(routes.network, folder)
    if isinstance(routes, RoutedNetwork):
        exits = [{"depth": one.depth, "threshold": one.threshold, "temperature": one.temperature} for one in routes.exits]
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
    routing = _routing(path)
    network = load_network(folder)
    try:
        if routing["kind"] == "confidence":
            return RoutedNetwork(network, [Exit(**one) for one in routing["exits"]])
        if routing["kind"] == "gate":
            made = GatedNetwork(network, hidden=routing["hidden"], shift=routing["shift"])
            _fill_gates(made, folder / GATES)
            return made.eval()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not describe a routing: {error}; delete it and run 'odn route' again") from None
    raise DataError(f"{path}: kind is confidence or gate; got {routing['kind']!r}; delete it and run 'odn route' again")


def _routing(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingInputError(f"{path} is missing; run 'odn route' first") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run 'odn route' again") from None
    if not isinstance(content, dict) or "kind" not in content:
        raise DataError(f"{path} does not describe a routing: it has no kind; delete it and run 'odn route' again")
    return content


def _fill_gates(made: GatedNetwork, path: Path) -> None:
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'odn route --kind gate' first")
    try:
        made.gates.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        raise DataError(f"{path} is damaged, or not for this network: {error}; delete it and run 'odn route --kind gate' again") from None
