"""Torch-Pruning: train the whole backbone, cut its channels to as many bytes as odn's network has, and train on.

Source: Fang et al., DepGraph, arXiv 2301.12900; the package torch-pruning, whose code this only calls.
"""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.results import Result
from benchmarks.search import epoch_cost
from odn.config import Config
from odn.data.batches import on_device
from odn.data.dataset import read_split
from odn.models.network import DepthNetwork, load_network
from odn.stages.working import opened
from odn.training.loop import Phase, train_phase
from odn.training.optim import Optimiser
from odn.training.readout import read_out


def run_pruning(config: Config, *, whole: Path, size_bytes: int, spent: float, budget: float, prepared: Path) -> Result:
    """Prune the network in the folder `whole`, for which `spent` full-depth epochs were paid, and train on to the `budget`."""
    begin = time.monotonic()
    data = opened(prepared, train=config.train)
    network = data.machine.holding(load_network(whole))
    example = data.train.normalised(data.train.batch(slice(0, 2)))
    pruned = prune_to(network, size_bytes=size_bytes, example=example)
    macs, whole_macs = _macs(pruned, example), _macs(network, example)
    share = epoch_cost(config, prepared=prepared, depth=network.architecture.n_blocks) * macs / whole_macs
    epochs = max(1, round((budget - spent) / share))
    optimiser = Optimiser(
        network=pruned.train(),
        momentum={name: torch.zeros_like(tensor) for name, tensor in pruned.named_parameters()},
        average=copy.deepcopy(pruned).requires_grad_(False),
    )
    phase = Phase(name="finish", depth=network.depth, epochs=epochs, seed=config.seed, warmup_epochs=0.0)
    rows = list(
        train_phase(
            optimiser,
            phase=phase,
            train=data.train,
            val=data.val,
            settings=config.train,
            augment=config.augment,
            machine=data.machine,
            checkpoint=None,
        )
    )
    seconds = time.monotonic() - begin
    test = read_out(
        optimiser.average,
        on_device(read_split(prepared / "test"), manifest=data.manifest, device=data.machine.device),
        machine=data.machine,
    )
    return Result(
        arm="torch_pruning",
        seed=config.seed,
        depth=network.depth,
        verdict="pruned",
        val_accuracy=rows[-1].val_accuracy,  # type: ignore[union-attr]
        test_accuracy=test.accuracy,
        n_test=test.n,
        n_params=sum(tensor.numel() for tensor in pruned.parameters()),
        size_bytes=_size(pruned),
        macs=macs,
        full_depth_epochs=spent + epochs * share,
        seconds=seconds,
        note=f"{epochs} epochs after pruning",
    )


def prune_to(network: DepthNetwork, *, size_bytes: int, example: torch.Tensor) -> DepthNetwork:
    """Return a copy whose channels are cut by magnitude, in all layers by the same share, until it is no larger than `size_bytes`."""
    low, high = 0.0, 1.0
    best = None
    for _ in range(12):
        ratio = (low + high) / 2
        candidate = _pruned(network, ratio=ratio, example=example)
        if _size(candidate) <= size_bytes:
            best, high = candidate, ratio
        else:
            low = ratio
    assert best is not None, "no ratio is enough"
    return best


def _pruned(network: DepthNetwork, *, ratio: float, example: torch.Tensor) -> DepthNetwork:
    import torch_pruning  # type: ignore[import-untyped]  # shipped without types

    copied = copy.deepcopy(network).eval().requires_grad_(True)
    heads: list[nn.Module] = list(copied.heads.values())
    pruner = torch_pruning.pruner.MagnitudePruner(
        copied,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=heads,
    )
    pruner.step()
    return copied


def _macs(network: nn.Module, example: torch.Tensor) -> int:
    """Count multiply-accumulates of convolutions and linear layers for one image."""
    total = 0

    def count(module: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight[0].numel() * out[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    was_training = network.training
    with torch.no_grad():
        network.eval()(example[:1])
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return total


def _size(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
