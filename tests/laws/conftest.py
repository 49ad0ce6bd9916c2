"""Small networks of every kind in the zoo, for laws that hold for all of them."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import VARIANTS, Stem, resnet_architecture

if TYPE_CHECKING:
    from laws.stage_runs import Stages


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Run networks as small as these on one thread: several only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(params=VARIANTS)
def backbone(request: pytest.FixtureRequest) -> str:
    """Name each backbone in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=["cifar", "imagenet"])
def stem(request: pytest.FixtureRequest) -> Stem:
    """Name each stem in turn."""
    name: Stem = request.param
    return name


@pytest.fixture
def in_channels(stem: Stem) -> int:
    """Give grey images to one stem and color images to the other: the number matters to a stem's first weight alone."""
    return {"cifar": 1, "imagenet": 3}[stem]


@pytest.fixture
def whole(backbone: str, stem: Stem, in_channels: int) -> Architecture:
    """Describe a whole backbone, narrow enough to be quick: every block, group and shortcut is there."""
    depth = VARIANTS[backbone].n_blocks
    return resnet_architecture(backbone, stem=stem, width=1 / 16, shortcut="avgpool", in_channels=in_channels, n_classes=5, depth=depth)


@pytest.fixture
def images(stem: Stem, in_channels: int) -> torch.Tensor:
    """Draw eight images whose map stays even at every change of group."""
    side = 16 if stem == "cifar" else 64
    return torch.randn(8, in_channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make(images: torch.Tensor) -> Callable[..., DepthNetwork]:
    """Give a function that builds a network, with the given heads, whose BatchNorms have seen images; it is in eval mode."""

    def settled(architecture: Architecture, *heads: int) -> DepthNetwork:
        network = build(architecture, torch.Generator().manual_seed(2), heads=heads or None)
        for _ in range(2):
            network.train()(images, max(network.head_depths))
        return network.eval()

    return settled


@pytest.fixture(scope="session")
def reached(tmp_path_factory: pytest.TempPathFactory) -> "Stages":
    """Search, once, a supernet of three depths and two widths, for a target that an exit reaches."""
    from laws.supernets import WIDTHS, searched

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = searched(tmp_path_factory.mktemp("reached"), **WIDTHS)
    torch.set_num_threads(n_threads)
    return found
