"""What a routing is fitted to: a network with several exits, and what its parts cost."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from odn.data.dataset import Manifest
from odn.errors import DataError, MissingInputError
from odn.files import sha256_of, write_json
from odn.models.cost import PartMacs, part_macs
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network
from odn.models.timing import combined
from odn.records import Amount, Positive, Record, Sha256, parse_record
from odn.routing.timing import PartTimes, part_times
from odn.searching.records import known_timing, steadier
from odn.training.device import Machine, machine_identity

LEAST_EXITS = 2


@dataclass(frozen=True, kw_only=True)
class Supernet:
    """Hold the network with its exits, the digest of its files, and its multiply-accumulates part by part."""

    network: DepthNetwork
    sha256: str
    parts: PartMacs

    @property
    def deepest(self) -> int:
        """Return the depth of the last exit."""
        return self.network.head_depths[-1]


@dataclass(frozen=True, kw_only=True)
class MeasuredParts(Record):
    """Hold what the parts of a network take, and on what that was measured: the content of routed/latency.json."""

    machine: str
    device: str
    threads: Positive
    torch: str
    supernet_sha256: Sha256
    hidden: Positive
    unit: str
    parts: PartTimes
    passes: Positive
    spread: Amount
    busy: bool


def read_supernet(folder: Path, *, manifest: Manifest, machine: Machine) -> Supernet:
    """Read the network with several exits, without blocks behind its last one, onto the device.

    Raises:
        MissingInputError: it is not there, or has a single exit.
        DataError: it is damaged, or made for other data.
    """
    way_out = "train one with search.mode: supernet and 'dvc repro', or name its folder with --supernet"
    if not (folder / "weights.safetensors").exists():
        raise MissingInputError(f"{folder} holds no network with several exits; {way_out}")
    network = load_network(folder)
    if len(network.head_depths) < LEAST_EXITS:
        raise MissingInputError(f"{folder} holds a network with a single exit, at depth {network.head_depths[0]}; {way_out}")
    mine = network.architecture.in_channels, network.architecture.n_classes
    if mine != (manifest.channels, manifest.n_classes):
        raise DataError(
            f"{folder} is for {mine[0]} channels and {mine[1]} classes, the prepared data has {manifest.channels} and "
            f"{manifest.n_classes}; {way_out}"
        )
    if network.architecture.is_cut:
        raise DataError(f"{folder} holds a network that was cut; {way_out}")
    parts = part_macs(network, manifest.height, manifest.width)
    digest = sha256_of(folder / "architecture.json", folder / "weights.safetensors")
    return Supernet(network=machine.to_device(network).eval(), sha256=digest, parts=parts)


def measured_times(path: Path, supernet: Supernet, *, manifest: Manifest, machine: Machine, hidden: int) -> PartTimes:
    """Time the parts of the network for one image; what this kind of machine, while it was quiet, measured before is taken as it is."""
    identity = machine_identity(machine) | {"supernet_sha256": supernet.sha256, "hidden": hidden}
    before = known_timing(MeasuredParts, path, identity)
    known = parse_record(MeasuredParts, path.read_bytes()).parts if before is not None else None
    if known is None or not _is_of(known, supernet.network):
        before = known = None
    if before is not None and known is not None and not before["busy"]:
        return known
    shape = (1, manifest.channels, manifest.height, manifest.width)
    x = torch.zeros(shape, device=machine.device).contiguous(memory_format=torch.channels_last)
    times, timing = part_times(supernet.network, x, hidden=hidden)
    measured = identity | {"unit": "ms, one image", "parts": dataclasses.asdict(times)} | combined([timing])
    kept = steadier(before, measured)
    write_json(path, kept)
    return times if kept is measured or known is None else known


def _is_of(times: PartTimes, network: DepthNetwork) -> bool:
    """Tell whether these are the parts of the network."""
    lengths = {len(times.residuals), len(times.shortcuts), len(times.gates)}
    return lengths == {network.depth} and tuple(sorted(times.heads)) == network.head_depths
