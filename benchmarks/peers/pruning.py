"""Torch-Pruning: train the whole backbone, cut its channels to as many bytes or MACs as odn's network has, and train on.

The cut takes the same share of every layer, or what is worth least over all of them (or over all that are alike: isomorphic), by magnitude,
by first-order Taylor scores, or at random; at once, or in steps with training in between.

Source: Fang et al., DepGraph, arXiv 2301.12900, and Isomorphic Pruning, arXiv 2407.04616; the package torch-pruning, whose code this only
calls.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.results import Result
from odn.config import Config
from odn.data.batches import on_device
from odn.data.dataset import read_split
from odn.errors import OdnError
from odn.models.cost import Cost, cost_of
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network
from odn.searching.data import SearchData, costs_at, opened
from odn.searching.phases import run_phase
from odn.storage import Objects
from odn.training.depth_task import Phase
from odn.training.evaluation import evaluate
from odn.training.fit import EpochRow
from odn.training.state import TrainState

Measure = Literal["size_bytes", "macs"]
MOST_EPOCHS = 60  # after the cut: a network of a hundredth of the MACs would train hundreds of epochs for the same cost
RATIOS = [ratio / n for n in (40, 400) for ratio in range(1, n)]  # that are tried: a layer that would lose every channel is left whole
SCORED_IMAGES, SCORED_BATCH = 2048, 128  # training images that Taylor scores come from
BETWEEN = 4  # epochs after each cut but the last


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Say how the peer prunes: to the metric of which arm, over which layers, by which score, in how many cuts, and for how long it trains.

    Without `epochs` (of the network that is cut, and after the last cut) it trains for what the arm cost. It cuts the whole backbone, or a
    thin network of our family with `start` times the bytes of the arm.
    """

    like: str
    of: Measure
    scope: Literal["uniform", "global", "isomorphic"] = "uniform"
    importance: Literal["magnitude", "taylor", "random"] = "magnitude"
    epochs: tuple[int, int] | None = None
    cuts: int = 1
    start: int | None = None


def run_pruning(config: Config, *, arm: str, whole: Path, peer: Peer, like: Result, spent: float, prepared: Path) -> Result:
    """Prune the network in `whole`, for which `spent` full-network epochs were paid, to `like`; train on for what `like` cost."""
    begin = time.monotonic()
    torch.manual_seed(config.seed)  # that random scores come from
    data = opened(prepared, config=config, objects=Objects)
    network = data.machine.to_device(load_network(whole))
    whole_costs, most = _costs(network, data), getattr(like, peer.of)
    full_macs = costs_at(data.backbone, data.manifest).macs
    for limit in [round(getattr(whole_costs, peer.of) ** (1 - n / peer.cuts) * most ** (n / peer.cuts)) for n in range(1, peer.cuts)]:
        network = prune_to(network, peer=peer, most=limit, data=data)
        network = _trained(network, epochs=BETWEEN, data=data, config=config)[0]
        spent += BETWEEN * _costs(network, data).macs / full_macs
    pruned = prune_to(network, peer=peer, most=most, data=data)
    costs = _costs(pruned, data)
    share = costs.macs / full_macs
    left = max(1, round((like.full_network_epochs - spent) / share))
    epochs = peer.epochs[1] if peer.epochs is not None else min(MOST_EPOCHS, left)
    trained, val_accuracy = _trained(pruned, epochs=epochs, data=data, config=config)
    seconds = time.monotonic() - begin
    test = evaluate(
        trained,
        on_device(read_split(prepared / "test"), manifest=data.manifest, device=data.machine.device),
        machine=data.machine,
    )
    return Result(
        arm=arm,
        seed=config.seed,
        depth=network.depth,
        verdict="pruned",
        val_accuracy=val_accuracy,
        test_accuracy=test.accuracy,
        n_test=test.n,
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        full_network_epochs=spent + epochs * share,
        seconds=seconds,
        note=f"{epochs} epochs after pruning",
    )


def _costs(network: DepthNetwork, data: SearchData) -> Cost:
    return cost_of(network, data.manifest.height, data.manifest.width)


def _trained(network: DepthNetwork, *, epochs: int, data: SearchData, config: Config) -> tuple[DepthNetwork, float]:
    """Train over so many epochs, the rate falling to 0; return the averaged network and its accuracy on val."""
    state = TrainState.fresh(copy.deepcopy(network).train())  # the tracing of its graph keeps hold of the parameters
    phase = Phase(name="finish", depth=network.depth, epochs=epochs, seed=config.seed, warmup_epochs=0.0)
    rows = [event for event in run_phase(state, phase, data=data, config=config, checkpoint=None) if isinstance(event, EpochRow)]
    return state.average, rows[-1].val_accuracy


def prune_to(network: DepthNetwork, *, peer: Peer, most: int, data: SearchData) -> DepthNetwork:
    """Return a copy whose channels are cut until it has no more than `most` of the metric.

    Raises:
        OdnError: the smallest that is left is still too large.
    """

    def fitting(ratio: float) -> DepthNetwork | None:
        candidate = _pruned(network, ratio=ratio, peer=peer, data=data)
        found: int = getattr(_costs(candidate, data), peer.of)
        return candidate if found <= most else None

    best, low, high = None, 0.0, 1.0
    for ratio in RATIOS:  # more is not always smaller
        best = fitting(ratio)
        if best is not None:
            high = ratio
            break
        low = ratio
    if best is None:
        raise OdnError(f"torch_pruning: at no ratio has the network {most:,} {peer.of} at most; ask for less pruning")
    for _ in range(8):
        middle = (low + high) / 2
        smaller = fitting(middle)
        best, low, high = (smaller, low, middle) if smaller is not None else (best, middle, high)
    return best


def _pruned(network: DepthNetwork, *, ratio: float, peer: Peer, data: SearchData) -> DepthNetwork:
    import torch_pruning  # type: ignore[import-untyped]  # shipped without types

    copied = copy.deepcopy(network).eval().requires_grad_(True)
    heads: list[nn.Module] = list(copied.heads.values())
    importance = {
        "magnitude": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.TaylorImportance,
        "random": torch_pruning.importance.RandomImportance,
    }[peer.importance]()
    pruner = torch_pruning.pruner.MagnitudePruner(
        copied,
        data.train.normalised(data.train.batch(slice(0, 2))),
        importance=importance,
        pruning_ratio=ratio,
        global_pruning=peer.scope != "uniform",
        isomorphic=peer.scope == "isomorphic",
        ignored_layers=heads,
    )
    if peer.importance == "taylor":
        for start in range(0, min(SCORED_IMAGES, len(data.train)), SCORED_BATCH):
            part = slice(start, start + SCORED_BATCH)
            F.cross_entropy(copied(data.train.normalised(data.train.batch(part))), data.train.labels[part]).backward()
    pruner.step()
    return copied
