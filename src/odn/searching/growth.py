"""Progressive depth expansion: a depth is grown from the one before it, until its curve on val is flat.

What is inherited from depth to depth is the `TrainState`: weights, momentum, averaged weights.
Source: Tareen and Tareen, arXiv 2510.10764; function-preserving growth: Chen et al. (Net2Net), arXiv 1511.05641.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.data.sharding import spread
from odn.models.expansion import carried, expanded
from odn.models.network import DepthNetwork, build
from odn.searching.convergence import DepthStep, Trial, why_stop
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run_phase
from odn.searching.states import read_state, write_state
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.training.depth_task import Phase
from odn.training.fit import EpochRow, Tick
from odn.training.seed import generator
from odn.training.state import TrainState

EXAMPLE_IMAGES = 256  # training images that a shortcut at a group change takes its statistics from


@dataclass(frozen=True)
class Grown:
    """Hold what the stable phase of a depth leaves; `state.average` is the network of the averaged weights."""

    state: TrainState
    step: DepthStep
    rows: tuple[EpochRow, ...]


@dataclass(frozen=True)
class Cooled:
    """Hold what a cooldown leaves: a network ready for use, and what it got right on val."""

    network: DepthNetwork
    trial: Trial
    rows: tuple[EpochRow, ...]


class Growth:
    """Train a depth grown from the one before it."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a depth."""
        data, config, depth = job.data, job.config, job.depth
        before = inherited.state if inherited is not None else None
        checkpoint = job.checkpoints.of(f"train-{depth}", *DEPENDS_ON, inputs=[config.search.mode])
        yield Began(depth, "stable", config.growth.max_epochs)
        for done in train_depth(before, data=data, config=config, depth=depth, checkpoint=checkpoint):
            if isinstance(done, Grown):
                yield Trained(done.state.average.truncated(depth), Inherited(state=done.state), done.step, done.rows)
            else:
                yield done

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the training state."""
        assert trained.inherited.state is not None, "a depth that was trained has one"
        write_state(folder / "state.safetensors", trained.inherited.state)

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the training state."""
        return Inherited(state=read_state(folder / "state.safetensors", machine=data.machine))


STRATEGY = Growth()


def train_depth(
    before: TrainState | None, *, data: SearchData, config: Config, depth: int, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Grown]:
    """Run the stable phase of a depth, grown from `before` or, where that is None, built from the seed; end with `Grown`."""
    after = before.network.depth if before is not None else 0
    state = grown(before, data=data, config=config, depth=depth)
    phase = Phase(
        name="stable",
        depth=depth,
        epochs=config.growth.max_epochs,
        seed=config.seed,
        warmup_epochs=config.train.warmup_epochs,
    )
    rows: list[EpochRow] = []
    stop = None
    for event in run_phase(state, phase, data=data, config=config, checkpoint=checkpoint):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
            stop = why_stop([row.val_accuracy for row in rows], config.growth)
            if stop is not None:
                break
    assert stop is not None, "max_epochs ends every curve"
    architecture = state.network.architecture
    costs, full = costs_at(architecture, data.manifest), full_network_cost(architecture, data.manifest)
    yield Grown(
        state=state,
        rows=tuple(rows),
        step=DepthStep(
            depth=depth,
            after=after,
            epochs=len(rows),
            stopped=stop.kind,
            why=stop.why,
            val_accuracy=rows[-1].val_accuracy,
            val_correct=rows[-1].val_correct,
            n_val=rows[-1].n_val,
            curve=tuple(row.val_accuracy for row in rows),
            n_params=costs.n_params,
            size_bytes=costs.size_bytes,
            macs=costs.macs,
            macs_full=full.macs,
            cost=full_network_epochs(len(rows), data=data, config=config, macs=costs.macs, macs_full=full.macs),
            threads=data.machine.threads,
        ),
    )


def cool_down(
    state: TrainState,
    *,
    data: SearchData,
    config: Config,
    name: Literal["trial", "finish"],
    epochs: int,
    checkpoint: Path | None,
) -> Iterator[Tick | EpochRow | Cooled]:
    """Branch off a state, which stays as it is, and take the rate to zero; end with the `Cooled` network and one evaluation on val."""
    branch = copy.deepcopy(state)
    architecture = branch.network.architecture
    phase = Phase(name=name, depth=architecture.depth, epochs=epochs, seed=config.seed, warmup_epochs=0.0)
    rows: list[EpochRow] = []
    for event in run_phase(branch, phase, data=data, config=config, checkpoint=checkpoint):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
    macs, macs_full = costs_at(architecture, data.manifest).macs, full_network_cost(architecture, data.manifest).macs
    spent = full_network_epochs(epochs, data=data, config=config, macs=macs, macs_full=macs_full)
    yield Cooled(
        network=branch.average.truncated(architecture.depth),
        trial=Trial(n_correct=rows[-1].val_correct, n=rows[-1].n_val, epochs=epochs, cost=spent),
        rows=tuple(rows),
    )


def grown(before: TrainState | None, *, data: SearchData, config: Config, depth: int) -> TrainState:
    """Return the network that a depth starts from, with its average and its momentum.

    Weights, average and momentum of what was there before are kept.
    """
    if before is None:
        return TrainState.fresh(data.machine.to_device(build(data.backbone.at(depth), generator(config.seed, "weights"))))
    images = _example_images(data.train)

    def wider(old: DepthNetwork) -> DepthNetwork:
        fresh = generator(config.seed, "weights", depth)
        whole = data.backbone  # a training state that was read from a file knows no pretrained weights
        return expanded(old, depth, init=config.growth.init, generator=fresh, images=images, backbone=whole)

    network, average = data.machine.to_device(wider(before.network)), data.machine.to_device(wider(before.average)).requires_grad_(False)
    momentum = carried(before.momentum, old=before.network, new=network)
    for name, parameter in network.named_parameters():
        momentum.setdefault(name, torch.zeros_like(parameter))
    return TrainState(network=network, momentum=momentum, average=average)


def _example_images(train: Images) -> Tensor:
    """Return a batch (n, C, H, W) like those of training, normalised, evenly spread."""
    index = torch.tensor(spread(len(train), shard=train.shard, wanted=EXAMPLE_IMAGES)[:EXAMPLE_IMAGES])
    return train.normalised(train.batch(index))
