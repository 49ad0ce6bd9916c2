"""Torch-Pruning: train the whole backbone, cut its channels to as many bytes or MACs as odn's network has, and train on.

Source: Fang et al., DepGraph, arXiv 2301.12900; the package torch-pruning, whose code this only calls.
"""

import copy
import time
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from benchmarks.results import Result
from odn.config import Config
from odn.data.batches import on_device
from odn.data.dataset import read_split
from odn.errors import OdnError
from odn.models.cost import cost_of
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network
from odn.searching.data import opened
from odn.searching.phases import run_phase
from odn.training.depth_task import Phase
from odn.training.evaluation import evaluate
from odn.training.fit import EpochRow
from odn.training.state import TrainState

Measure = Literal["size_bytes", "macs"]
MOST_EPOCHS = 60  # after the cut: a network of a hundredth of the MACs would train hundreds of epochs for the same cost


def run_pruning(config: Config, *, arm: str, whole: Path, of: Measure, like: Result, spent: float, prepared: Path) -> Result:
    """Prune the network in `whole`, for which `spent` full-network epochs were paid, to `like`; train on for what `like` cost."""
    begin = time.monotonic()
    data = opened(prepared, config=config)
    network = data.machine.to_device(load_network(whole))
    example = data.train.normalised(data.train.batch(slice(0, 2)))
    pruned = prune_to(network, of=of, most=getattr(like, of), example=example)
    costs, whole_costs = (cost_of(one, data.manifest.height, data.manifest.width) for one in (pruned, network))
    share = costs.macs / whole_costs.macs
    epochs = min(MOST_EPOCHS, max(1, round((like.full_network_epochs - spent) / share)))
    state = TrainState.fresh(copy.deepcopy(pruned).train())  # the tracing of its graph keeps hold of the parameters
    phase = Phase(name="finish", depth=network.depth, epochs=epochs, seed=config.seed, warmup_epochs=0.0)
    rows = [event for event in run_phase(state, phase, data=data, config=config, checkpoint=None) if isinstance(event, EpochRow)]
    seconds = time.monotonic() - begin
    test = evaluate(
        state.average,
        on_device(read_split(prepared / "test"), manifest=data.manifest, device=data.machine.device),
        machine=data.machine,
    )
    return Result(
        arm=arm,
        seed=config.seed,
        depth=network.depth,
        verdict="pruned",
        val_accuracy=rows[-1].val_accuracy,
        test_accuracy=test.accuracy,
        n_test=test.n,
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        full_network_epochs=spent + epochs * share,
        seconds=seconds,
        note=f"{epochs} epochs after pruning",
    )


def prune_to(network: DepthNetwork, *, of: Measure, most: int, example: torch.Tensor) -> DepthNetwork:
    """Return a copy whose channels are cut by magnitude, in all layers by the same share, until it has no more than `most`.

    Raises:
        OdnError: the smallest that is left is still too large.
    """
    low, high = 0.0, 1.0
    best = None
    for _ in range(12):
        ratio = (low + high) / 2
        candidate = _pruned(network, ratio=ratio, example=example)
        if getattr(cost_of(candidate, *example.shape[2:]), of) <= most:
            best, high = candidate, ratio
        else:
            low = ratio
    if best is None:
        raise OdnError(f"torch_pruning: with one channel a layer the network still has more than {most:,} {of}; ask for less pruning")
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
