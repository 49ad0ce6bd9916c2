"""Time a routed network on real images beside every static exit: what skipping saves on a clock, not on paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odn.data.batches import Images
from odn.files import sha256_of, write_json
from odn.models.stored_routes import Routes
from odn.models.timing import quietest_ms
from odn.records import Milliseconds, read_known
from odn.stages.routers.given import Supernet, machine_identity
from odn.training.device import Machine

BATCHES = (1, 128, 1024)
SINGLES = 32  # images that batches of one are timed over: their depths differ
REPEATS = 10


def wall_clock(
    path: Path, routes: Routes, *, folder: Path, before: Path, supernet: Supernet, val: Images, machine: Machine
) -> dict[str, Any]:
    """Write milliseconds an image of the routed network and of each static exit, by batch size; float32, images of val in their order.

    What this kind of machine has measured of the same files before, in `before`, is kept as it is.
    """
    files = [folder / "routing.json", *sorted(folder.glob("*.safetensors"))]
    identity = machine_identity(machine) | {"sha256": sha256_of(*files), "supernet_sha256": supernet.sha256, "unit": "ms an image"}
    networks: dict[str, nn.Module] = {"routed": routes}
    networks |= {f"exit {depth}": supernet.network.truncated(depth) for depth in supernet.network.head_depths}
    known = read_known(dict[str, str | int | dict[str, Milliseconds]], before, otherwise="times are measured anew")
    if known is not None and _is_of(known, identity, networks):
        write_json(path, known)
        return known
    record = identity | {f"batch {size}": _timed(networks, size=size, val=val) for size in BATCHES}
    write_json(path, record)
    return record


def _is_of(known: dict[str, Any], identity: dict[str, Any], networks: dict[str, nn.Module]) -> bool:
    """Tell whether all of this, and nothing else, was measured."""
    batches = [known.get(f"batch {size}") for size in BATCHES]
    whole = all(isinstance(times, dict) and times.keys() == networks.keys() for times in batches)
    return whole and len(known) == len(identity) + len(BATCHES) and {name: known.get(name) for name in identity} == identity


@torch.inference_mode()
def _timed(networks: dict[str, nn.Module], *, size: int, val: Images) -> dict[str, float]:
    wanted = torch.arange(size if size > 1 else SINGLES) % len(val)
    batches = val.normalised(val.batch(wanted)).split(size)
    calls: dict[str, Callable[[], object]] = {name: _call(network.eval(), batches) for name, network in networks.items()}
    return {name: ms / len(wanted) for name, ms in quietest_ms(calls, repeats=REPEATS).items()}


def _call(network: nn.Module, batches: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> None:
        for batch in batches:
            network(batch)

    return run
