"""What a search may see, and what passes over it cost."""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.batches import Images, n_steps, on_device
from odn.data.dataset import Manifest, Split, read_manifest, verified_split
from odn.data.shards import OpenObjects
from odn.models.architecture import Architecture
from odn.models.configured import configured
from odn.models.cost import Cost, cost
from odn.searching.pretraining import pretrained
from odn.training.device import Machine, choose_machine

FORWARD_SHARE = 1 / 3  # of a training pass: a backward pass takes two products for each of the forward pass


@dataclass(frozen=True)
class SearchData:
    """Hold what the search may see, train to fit and val to choose, and the whole backbone that it cuts."""

    train: Images
    val: Images
    manifest: Manifest
    machine: Machine
    backbone: Architecture


def search_data(train: Split, val: Split, *, manifest: Manifest, machine: Machine, backbone: Architecture) -> SearchData:
    """Bring both splits to the device."""
    there = {name: on_device(split, manifest=manifest, device=machine.device) for name, split in (("train", train), ("val", val))}
    return SearchData(train=there["train"], val=there["val"], manifest=manifest, machine=machine, backbone=backbone)


def opened(prepared: Path, *, config: Config, objects: OpenObjects, weights: Path | None = None) -> SearchData:
    """Open train and val on the device that the config asks for, with the threads that it gives; the test split is not touched.

    `objects` opens the bucket where images may lie. `weights` is the folder of pretrained ones, which a stage needs that makes networks
    anew.

    Raises:
        MissingInputError: data is not prepared.
        DataError: it is not what was prepared.
        ConfigError: the device is not there, or the backbone is not for such images.
    """
    manifest = read_manifest(prepared / "dataset.json")
    backbone = backbone_of(config, manifest)
    machine = choose_machine(config.train, macs=costs_at(backbone, manifest).macs)
    if weights is not None:
        backbone = pretrained(backbone, weights, config=config)
    train, val = (verified_split(prepared / name, manifest=manifest, objects=objects) for name in ("train", "val"))
    return search_data(train, val, manifest=manifest, machine=machine, backbone=backbone)


def backbone_of(config: Config, manifest: Manifest) -> Architecture:
    """Describe the configured backbone for these data."""
    return configured(config, in_channels=manifest.channels, n_classes=manifest.n_classes, height=manifest.height, width=manifest.width)


def costs_at(architecture: Architecture, manifest: Manifest) -> Cost:
    """Return what the network costs on images of the data set's size."""
    return cost(architecture, manifest.height, manifest.width)


def full_network_cost(architecture: Architecture, manifest: Manifest) -> Cost:
    """Return what the whole backbone costs on images of the data set's size."""
    return costs_at(architecture.whole, manifest)


def full_network_epochs(epochs: int, *, data: SearchData, config: Config, macs: float, macs_full: int) -> float:
    """Return epochs weighted by MACs: 1 is one pass over train at full depth. Evaluations on val are not counted."""
    n_trained = min(len(data.train), n_steps(data.train, batch_size=config.train.batch_size) * config.train.batch_size)
    return epochs * n_trained / len(data.train) * macs / macs_full
