"""Time a routed network on real images beside every static exit: what skipping saves on a clock, not on paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odn.data.batches import Images
from odn.files import sha256_of, write_json
from odn.models.timing import Timing, combined, timed
from odn.records import Milliseconds
from odn.routing.given import Supernet
from odn.routing.stored import Routes
from odn.searching.records import known_timing, steadier
from odn.training.device import Machine, machine_identity

BATCHES = (1, 128, 1024)
SINGLES = 32  # images that batches of one are timed over: their depths differ


def wall_clock(
    path: Path, routes: Routes, *, folder: Path, before: Path, supernet: Supernet, val: Images, machine: Machine
) -> dict[str, Any]:
    """Write milliseconds an image of the routed network and of each static exit, by batch size; float32, images of val in their order.

    What this kind of machine, while it was quiet, has measured of the same files before, in `before`, is kept as it is.
    """
    files = [folder / "routing.json", *sorted(folder.glob("*.safetensors"))]
    identity = machine_identity(machine) | {"sha256": sha256_of(*files), "supernet_sha256": supernet.sha256, "unit": "ms an image"}
    networks: dict[str, nn.Module] = {"routed": routes}
    networks |= {f"exit {depth}": supernet.network.truncated(depth) for depth in supernet.network.head_depths}
    known = known_timing(dict[str, bool | int | float | str | dict[str, Milliseconds]], before, identity)
    if known is not None and not _is_whole(known, identity, networks):
        known = None
    if known is not None and not known["busy"]:
        write_json(path, known)
        return known
    record: dict[str, Any] = dict(identity)
    looks = []
    for size in BATCHES:
        times, timing = _timed(networks, size=size, val=val)
        record[f"batch {size}"] = times
        looks.append(timing)
    record = steadier(known, record | combined(looks))
    write_json(path, record)
    return record


def _is_whole(known: dict[str, Any], identity: dict[str, Any], networks: dict[str, nn.Module]) -> bool:
    """Tell whether all of this, and nothing else, was measured."""
    batches = [known.get(f"batch {size}") for size in BATCHES]
    whole = all(isinstance(times, dict) and times.keys() == networks.keys() for times in batches)
    of_timing = isinstance(known.get("busy"), bool) and isinstance(known.get("spread"), float) and "passes" in known
    return whole and of_timing and len(known) == len(identity) + len(BATCHES) + 3


@torch.inference_mode()
def _timed(networks: dict[str, nn.Module], *, size: int, val: Images) -> tuple[dict[str, float], Timing]:
    wanted = torch.arange(size if size > 1 else SINGLES) % len(val)
    batches = val.normalised(val.batch(wanted)).split(size)
    calls: dict[str, Callable[[], object]] = {name: _call(network.eval(), batches) for name, network in networks.items()}
    timing = timed(calls)
    return {name: ms / len(wanted) for name, ms in timing.ms.items()}, timing


def _call(network: nn.Module, batches: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> None:
        for batch in batches:
            network(batch)

    return run
