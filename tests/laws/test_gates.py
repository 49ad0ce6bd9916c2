"""Laws of gates: a cut network is the gated one, its cost is what was counted, and no budget is exceeded."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from odn.models.architecture import Architecture, CutBlock
from odn.models.cost import cost_of
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import VARIANTS, Shortcut, cut_of, resnet_architecture
from odn.models.stored_networks import load_network, save_network
from odn.pruning.budget import BudgetMetric, closed_to, cost_coefficients, expected, least
from odn.pruning.gates import Gates, gated_forward, gates_of, with_gates
from odn.pruning.surgery import cut

Make = Callable[..., DepthNetwork]
COUNT = {"macs": "macs", "params": "n_params", "bytes": "size_bytes"}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}  # the sums of fewer terms round differently


def lively(network: DepthNetwork) -> DepthNetwork:
    """Give every BatchNorm a gamma and a beta of its own: a closed channel that was not silenced would show."""
    draws = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draws)
            nn.init.normal_(module.bias, generator=draws)
    return network.eval()


def small(backbone: str, **changes: int) -> DepthNetwork:
    """Build a whole backbone, narrow, or some of its first blocks."""
    same = {"stem": "cifar", "width": 1 / 8, "shortcut": "avgpool", "in_channels": 1, "n_classes": 3, "depth": VARIANTS[backbone].n_blocks}
    return build(resnet_architecture(backbone, **(same | changes)), torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def blocks_left(network: DepthNetwork) -> tuple[CutBlock, ...]:
    """Return what is left of a network that was cut."""
    cut = cut_of(network.architecture)
    assert cut is not None
    return cut.blocks


def scores_of(gates: Gates, seed: int = 4) -> torch.Tensor:
    """Draw a score for each gate."""
    return torch.randn(gates.n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shortcut", ["avgpool", "conv"])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_cut_network_is_the_gated_one(whole: Architecture, images: torch.Tensor, make: Make, shortcut: Shortcut, share: float) -> None:
    """For every backbone, stem and shortcut: the same logits, whether gates multiply or are multiplied in."""
    described = dataclasses.replace(whole, arguments=whole.arguments | {"shortcut": shortcut})
    network, size = lively(make(described)), images.shape[2]
    gates = gates_of(network)
    coefficients = cost_coefficients(network, gates, metric="params", height=size, width=size)
    budget = share * float(expected(gates, coefficients, torch.ones(gates.n)))
    open_ = closed_to(gates, coefficients, scores_of(gates), budget=budget)
    with torch.no_grad():
        left = cut(network, gates, open_, height=size, width=size)
        through = gated_forward(network, gates, open_.float(), images)
        assert 0 < sum(block.inner != () for block in blocks_left(left)) < whole.depth
        torch.testing.assert_close(left(images), through, **CLOSE)
        torch.testing.assert_close(left(images), with_gates(network, gates, open_.float())(images), **CLOSE)


@pytest.mark.parametrize("of", ["macs", "params", "bytes"])
def test_no_budget_is_exceeded(backbone: str, of: BudgetMetric) -> None:
    """What gates count is what the cut network costs, exactly; within every budget, and not far from it."""
    network, size = small(backbone), 8
    gates = gates_of(network)
    coefficients = cost_coefficients(network, gates, metric=of, height=size, width=size)
    full = expected(gates, coefficients, torch.ones(gates.n, dtype=torch.float64))
    assert float(full) == getattr(cost_of(network, size, size), COUNT[of])
    for share in (0.8, 0.1):
        open_ = closed_to(gates, coefficients, scores_of(gates), budget=share * float(full))
        counted = getattr(cost_of(cut(network, gates, open_, height=size, width=size), size, size), COUNT[of])
        assert counted == float(expected(gates, coefficients, open_))
        assert 0.7 * share < counted / float(full) <= share


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_least_keeps_a_channel_everywhere(depth: int) -> None:
    """A shallow network without a shortcut that projects keeps one block; a deeper one only its shortcuts."""
    network = small("resnet18", depth=depth)
    gates = gates_of(network)
    coefficients = cost_coefficients(network, gates, metric="macs", height=8, width=8)
    open_ = closed_to(gates, coefficients, scores_of(gates), budget=0.0)
    left = blocks_left(cut(network, gates, open_, height=8, width=8))
    assert [(block.inner, block.out) for block in left] == ([((), 1)] if depth == 3 else [((1,), 1)])
    assert float(expected(gates, coefficients, open_)) == least(gates, coefficients)


def test_higher_scores_stay(backbone: str) -> None:
    """Where every channel of a stream costs the same, those that are left have the highest scores."""
    network = small(backbone)
    gates = gates_of(network)
    coefficients = cost_coefficients(network, gates, metric="params", height=8, width=8)
    scores = scores_of(gates)
    budget = 0.4 * float(expected(gates, coefficients, torch.ones(gates.n)))
    open_ = closed_to(gates, coefficients, scores, budget=budget).bool()
    for stream in gates.streams:
        assert scores[stream][open_[stream]].mean() > scores[stream].mean() or open_[stream].all()


def test_open_gates_change_nothing(make: Make, whole: Architecture, images: torch.Tensor) -> None:
    """With every gate at 1 the gated network gives the logits of the plain one, to the bit."""
    network = make(whole)
    gates = gates_of(network)
    assert torch.equal(gated_forward(network, gates, torch.ones(gates.n), images), network(images))


def test_gradients_reach_gates_and_weights(make: Make, whole: Architecture, images: torch.Tensor) -> None:
    """Every gate and every weight learns from the same loss."""
    network = lively(make(whole)).train()
    gates = gates_of(network)
    values = torch.full((gates.n,), 0.5, requires_grad=True)
    gated_forward(network, gates, values, images).square().sum().backward()
    assert values.grad is not None
    assert (values.grad != 0).float().mean() > 0.9  # a channel that no image of the eight excites has none
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_cut_network_is_stored_like_any_other(backbone: str, tmp_path: Path) -> None:
    """`load_network` gives it back, bit for bit."""
    network, size, images = lively(small(backbone)), 8, torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    gates = gates_of(network)
    coefficients = cost_coefficients(network, gates, metric="bytes", height=size, width=size)
    open_ = closed_to(gates, coefficients, scores_of(gates), budget=0.2 * cost_of(network, size, size).size_bytes)
    left = cut(network, gates, open_, height=size, width=size)
    save_network(left, tmp_path)
    assert torch.equal(load_network(tmp_path)(images), left.eval()(images))
