"""Laws of Muon's steps: orthogonal, of one length whatever the gradient's, and for kernels of blocks alone."""

import copy

import pytest
import torch

from laws.search_data import small_config
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import configured, resnet_architecture
from odn.sections import TrainConfig
from odn.training.device import Machine
from odn.training.muon import orthogonalised
from odn.training.optim import Updates
from odn.training.state import TrainState

SHAPES = [(8, 4, 3, 3), (8, 4, 1, 1), (4, 8, 1, 1), (8, 8, 3, 3)]  # wide, tall, square


def kernel(shape: tuple[int, int, int, int], seed: int = 0) -> torch.Tensor:
    """Draw a kernel."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_direction_gets_the_same_length(shape: tuple[int, int, int, int]) -> None:
    """Singular values come out between 0.5 and 1.4 times the stretch: Newton-Schulz with these coefficients promises no more."""
    matrix = orthogonalised([kernel(shape)], dtype=torch.float32)[0].flatten(1)
    stretch = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    values = torch.linalg.svdvals(matrix) / stretch
    assert values.min() > 0.5
    assert values.max() < 1.4


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_are_kept(shape: tuple[int, int, int, int]) -> None:
    """The polar factor has the largest inner product with its matrix: the sum of singular values, here to a fifth."""
    given = kernel(shape)
    turned = orthogonalised([given], dtype=torch.float32)[0]
    stretch = max(1.0, shape[0] / given[0].numel()) ** 0.5
    assert float((given * turned).sum()) / stretch == pytest.approx(float(torch.linalg.svdvals(given.flatten(1)).sum()), rel=0.2)


@pytest.mark.parametrize("shape", [*SHAPES, (40, 3, 3, 3), (20, 16, 3, 3)])
def test_squares_give_what_the_iteration_on_matrices_gives(shape: tuple[int, int, int, int]) -> None:
    """In float32 the polynomials are computed on squares, in bf16 on the matrices: the same step, within what bf16 holds."""
    given = kernel(shape)
    given[0] = given[1]  # one direction is missing
    by_squares, by_matrices = (orthogonalised([given], dtype=dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert torch.allclose(by_squares, by_matrices, atol=0.05)
    assert all(step.is_contiguous(memory_format=torch.channels_last) for step in (by_squares, by_matrices))


def test_the_size_of_a_gradient_does_not_matter() -> None:
    """A gradient a thousand times as large gives the same step; none gives none."""
    small, large, none = orthogonalised([kernel(SHAPES[0]), 1024 * kernel(SHAPES[0]), 0 * kernel(SHAPES[0])], dtype=torch.float32)
    assert torch.allclose(small, large, atol=1e-4)  # the norm has an epsilon below it
    assert not none.any()


def test_kernels_of_one_shape_do_not_mix() -> None:
    """Computed together or one by one, mixed with other shapes: the same steps, in their own places."""
    given = [kernel(SHAPES[i % 4], seed=i) for i in range(8)]
    together = orthogonalised(given, dtype=torch.float32)
    for alone, step in zip(given, together, strict=True):
        assert torch.allclose(orthogonalised([alone], dtype=torch.float32)[0], step, atol=1e-5)  # another order of sums


def stepped(optimizer_name: str, *, scale: float) -> tuple[DepthNetwork, DepthNetwork]:
    """Take one step with gradients of ones times `scale`; return the network before and after."""
    train: TrainConfig = small_config(train={"optimizer": optimizer_name, "weight_decay": 0.0}).train
    architecture = resnet_architecture("resnet18", stem="cifar", width=0.125, shortcut="avgpool", in_channels=1, n_classes=3, depth=3)
    before = build(architecture, torch.Generator().manual_seed(0))
    network = copy.deepcopy(before)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, scale)
    optimizer = TrainState.fresh(network)
    machine = Machine(device=torch.device("cpu"), precision="fp32")
    Updates(optimizer, train=train, machine=machine, steps_per_epoch=10).step(rate=1.0)
    return before, network


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_muon_steps_the_kernels_of_blocks_and_nothing_else(optimizer: str) -> None:
    """Twice the gradient is twice the step with SGD, and the same step with Muon; stem, norms and heads always take SGD's."""
    (before, once), (_, twice) = stepped(optimizer, scale=1.0), stepped(optimizer, scale=2.0)
    for name, start in before.named_parameters():
        one, two = once.get_parameter(name) - start, twice.get_parameter(name) - start
        by_muon = optimizer == "muon" and name.startswith("blocks.") and start.ndim == 4
        assert torch.allclose(two, one if by_muon else 2 * one, atol=1e-5), name  # a difference of rounded sums


def test_a_kernel_without_gradient_shrinks_by_its_decay() -> None:
    """By the rate times the decay, and nothing else but kernels of blocks does."""
    config = small_config(train={"weight_decay": 0.0, "muon_lr": 0.5, "muon_weight_decay": 0.02})
    network = build(configured(config, in_channels=1, n_classes=10, depth=1), torch.Generator().manual_seed(0))
    before = copy.deepcopy(network)
    Updates(TrainState.fresh(network), train=config.train, machine=Machine(torch.device("cpu"), "fp32"), steps_per_epoch=10).step(rate=0.5)
    for (name, new), old in zip(network.named_parameters(), before.parameters(), strict=True):
        is_kernel = name.startswith("blocks.") and new.ndim == 4
        assert torch.allclose(new, old * (1 - 0.5 * 0.5 * 0.02) if is_kernel else old, rtol=1e-6)
