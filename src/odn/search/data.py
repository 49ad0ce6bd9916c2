"""What a search may see, and what passes over it cost."""

from dataclasses import dataclass

from odn.config import Config
from odn.data.batches import Images, n_steps, on_device
from odn.data.dataset import Manifest, Split
from odn.models.architecture import Architecture
from odn.models.cost import Cost, cost
from odn.models.resnet_shapes import configured
from odn.training.device import Machine

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


def backbone_of(config: Config, manifest: Manifest) -> Architecture:
    """Describe the configured backbone for these data."""
    return configured(config, in_channels=manifest.channels, n_classes=manifest.n_classes)


def costs_at(architecture: Architecture, manifest: Manifest) -> Cost:
    """Return what the network costs on images of the data set's size."""
    return cost(architecture, manifest.height, manifest.width)


def full_depth_cost(architecture: Architecture, manifest: Manifest) -> Cost:
    """Return what the whole backbone costs on images of the data set's size."""
    return costs_at(architecture.whole, manifest)


def full_depth_epochs(epochs: int, *, data: SearchData, config: Config, macs: float, macs_full: int) -> float:
    """Return epochs weighted by MACs: 1 is one pass over train at full depth. Looks at val are not counted."""
    n_trained = min(len(data.train), n_steps(data.train, batch_size=config.train.batch_size) * config.train.batch_size)
    return epochs * n_trained / len(data.train) * macs / macs_full
