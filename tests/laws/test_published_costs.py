"""What the published networks cost. Source: arXiv 2510.10764 and its authors' notebooks."""

import io
import itertools

import pytest
import torch

from odn.models.architecture import Architecture
from odn.models.cost import cost, counted_macs, part_macs
from odn.models.network import DepthNetwork, empty
from odn.models.resnet_shapes import Shortcut, Stem, resnet_architecture

# backbone, image channels, classes, image side, depth: parameters, MiB of the file; at full depth; fractions of bytes and MACs saved
PUBLISHED = {
    "mnist": ("resnet18", 1, 10, 28, 2, 149_322, 0.582, 11_172_810, 42.69, 0.9864, 0.745),
    "emnist_letters": ("resnet18", 1, 26, 28, 3, 382_170, 1.478, 11_181_018, 42.73, 0.9654, 0.647),
    "fashion_mnist": ("resnet34", 1, 10, 28, 6, 1_044_938, 4.022, 21_280_970, 81.31, 0.9505, 0.643),
    "svhn": ("resnet34", 3, 10, 32, 5, 750_666, 2.894, 21_282_122, 81.32, 0.9644, 0.687),
    "cifar10": ("resnet50", 3, 10, 32, 11, 6_311_498, 24.24, 23_520_842, 90.02, 0.731, 0.314),
}
ROWS = pytest.mark.parametrize("row", PUBLISHED.values(), ids=PUBLISHED)
SHORTCUTS = pytest.mark.parametrize("shortcut", ["avgpool", "conv"])
Row = tuple[str, int, int, int, int, int, float, int, float, float, float]


def published(row: Row, *, shortcut: Shortcut = "conv") -> tuple[Architecture, Architecture]:
    """Describe a row's network at its depth, and at full depth."""
    backbone, in_channels, n_classes, _, depth, *_ = row
    kept = resnet_architecture(
        backbone, stem="cifar", width=1, shortcut=shortcut, in_channels=in_channels, n_classes=n_classes, depth=depth
    )
    return kept, kept.at(kept.n_blocks)


def file_bytes(architecture: Architecture) -> int:
    """Count the bytes of the file that `torch.save` makes of the state dict: the figure that was published."""
    file = io.BytesIO()
    torch.save(empty(architecture, heads=(architecture.depth,)).state_dict(), file)
    return len(file.getvalue())


def significant(value: float, *, like: float) -> float:
    """Round to as many decimals as the published figure has."""
    return round(value, len(str(like).split(".")[1]))


@ROWS
@SHORTCUTS
def test_parameters_are_the_published_ones(row: Row, shortcut: Shortcut) -> None:
    """Both shortcuts have exactly the published number of parameters, at the optimal and at full depth."""
    kept, full = published(row, shortcut=shortcut)
    assert (cost(kept, 28, 28).n_params, cost(full, 28, 28).n_params) == (row[5], row[7])


@ROWS
def test_files_are_as_large_as_published(row: Row) -> None:
    """The published sizes are those of a `torch.save` file, to the last digit given."""
    for architecture, published_mib in zip(published(row), (row[6], row[8]), strict=True):
        assert significant(file_bytes(architecture) / 2**20, like=published_mib) == published_mib


@ROWS
def test_size_bytes_is_the_file_without_its_headers(row: Row) -> None:
    """What we count, the tensors' own bytes, lies within 400 bytes a tensor of the published file."""
    for architecture in published(row):
        n_tensors = len(empty(architecture, heads=(architecture.depth,), device="meta").state_dict())
        assert 0 < file_bytes(architecture) - cost(architecture, 28, 28).size_bytes < 400 * n_tensors


@ROWS
def test_savings_are_the_published_ones(row: Row) -> None:
    """Fractions of bytes and of MACs saved agree with the table within 0.1 points, the last digit given."""
    (kept, full), side = published(row), row[3]
    kept_cost, full_cost = cost(kept, side, side), cost(full, side, side)
    assert 1 - kept_cost.size_bytes / full_cost.size_bytes == pytest.approx(row[9], abs=1e-3)
    assert 1 - kept_cost.macs / full_cost.macs == pytest.approx(row[10], abs=1e-3)


@pytest.mark.parametrize(
    ("backbone", "in_channels", "side", "mmacs"),
    [
        ("resnet18", 1, 28, [58, 116, 161, 219, 264, 322, 380, 456]),
        ("resnet34", 3, 32, [77, 153, 228, 287, 362, 438, 513, 572, 648, 723, 799, 874, 950, 1008, 1084, 1159]),
    ],
)
@SHORTCUTS
def test_macs_grow_with_depth_as_published(backbone: str, in_channels: int, side: int, mmacs: list[int], shortcut: Shortcut) -> None:
    """The forward MMACs at each depth are the published list, with either shortcut."""
    full = resnet_architecture(backbone, stem="cifar", width=1, shortcut=shortcut, in_channels=in_channels, n_classes=10, depth=1)
    assert [round(cost(full.at(depth), side, side).macs / 1e6) for depth in range(1, len(mmacs) + 1)] == mmacs


@SHORTCUTS
def test_macs_are_those_that_a_forward_pass_does(backbone: str, stem: Stem, shortcut: Shortcut) -> None:
    """What is counted on paper, part by part, equals what torch is asked to compute, on a map that is neither square nor even."""
    architecture = resnet_architecture(backbone, stem=stem, width=1 / 16, shortcut=shortcut, in_channels=3, n_classes=7)
    network = empty(architecture, heads=(1, architecture.depth))
    assert part_macs(network, 33, 17) == counted_macs(network, 33, 17)


def test_each_block_costs_something(whole: Architecture) -> None:
    """Parameters, bytes and MACs all rise with every block."""
    costs = [cost(whole.at(depth), 32, 32) for depth in range(1, whole.n_blocks + 1)]
    for shallow, deep in itertools.pairwise(costs):
        assert shallow.n_params < deep.n_params
        assert shallow.size_bytes < deep.size_bytes
        assert shallow.macs < deep.macs


def test_cost_counts_the_network_that_is_built(whole: Architecture) -> None:
    """The counts are those of the very network that `empty` allocates, with its one head."""
    network: DepthNetwork = empty(whole, heads=(whole.depth,))
    counted = cost(whole, 32, 32)
    assert counted.n_params == sum(parameter.numel() for parameter in network.parameters())
    assert counted.size_bytes == sum(tensor.nbytes for tensor in network.state_dict().values())
