"""The published procedure, as it was coded: a warm-up of all depths at once, then depth after depth, each anew from the warm-up.

Source: Tareen and Tareen, arXiv 2510.10764, and the authors' notebooks (github.com/saktx/Optimally_Deep_Networks). What differs here:
`paper.max_epochs` bounds a depth, which the published procedure does not. Its rates are made for torch's own initial weights: the
larger ones that are drawn elsewhere in odn turn more slowly under them, and cost 0.4 points on MNIST.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from odn.config import Config
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.models.stored_networks import load_weights, save_weights
from odn.searching.convergence import DepthStep, Stop
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run
from odn.searching.published_task import PublishedTask, WarmUpTask
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.training.fit import EpochRow, Tick
from odn.training.seed import generator


@dataclass(frozen=True)
class Warm:
    """Hold what the warm-up leaves: the whole backbone, with a head at every depth."""

    network: DepthNetwork


@dataclass(frozen=True)
class Published:
    """Hold what a depth leaves: its best network on val."""

    network: DepthNetwork
    step: DepthStep
    rows: tuple[EpochRow, ...]


class AsPublished:
    """Train a depth from the warm-up of the whole backbone, which is handed on from depth to depth as it is."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a depth; before the first, warm all of them up."""
        data, config, depth, checkpoints = job.data, job.config, job.depth, job.checkpoints
        shared, sections = inherited.shared if inherited is not None else None, (*DEPENDS_ON, "paper")
        if shared is None:
            yield Began(depth, "warm-up", config.paper.warmup_epochs)
            for event in warm_up(data=data, config=config, checkpoint=checkpoints.of("warm-up", *sections)):
                if isinstance(event, Warm):
                    shared = event.network
                else:
                    yield event
        assert shared is not None, "a warm-up ends with its network"
        checkpoint, is_first = checkpoints.of(f"train-{depth}", *sections), inherited is None
        yield Began(depth, "stable", config.paper.max_epochs)
        for done in train_published(shared, data=data, config=config, depth=depth, is_first=is_first, checkpoint=checkpoint):
            yield Trained(done.network, Inherited(shared=shared), done.step, done.rows) if isinstance(done, Published) else done

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the warm-up."""
        assert trained.inherited.shared is not None, "every depth hands it on"
        save_weights(trained.inherited.shared, folder / "state.safetensors")

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the warm-up."""
        shared = untrained(data, config)
        load_weights(shared, folder / "state.safetensors")
        return Inherited(shared=shared)


STRATEGY = AsPublished()


def warm_up(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | Warm]:
    """Train all depths at once, from fresh weights; end with `Warm`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    task = WarmUpTask(untrained(data, config), config=config, machine=data.machine)
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        if isinstance(event, Tick):
            yield event
    yield Warm(task.sgd.network)


def train_published(
    warm: DepthNetwork, *, data: SearchData, config: Config, depth: int, is_first: bool, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Published]:
    """Train one depth from the warm-up, which stays as it is; end with `Published`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    network = data.machine.to_device(warm.truncated(depth).train())
    first_lr, deepest = config.paper.lr if is_first else config.paper.later_lr, depth == warm.architecture.n_blocks
    task = PublishedTask(network, config=config, machine=data.machine, first_lr=first_lr, deepest=deepest)
    rows: list[EpochRow] = []
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
            if task.stop is not None and len(rows) == task.patience.n_epochs:
                break
    assert task.stop is not None, "max_epochs ends every depth"
    network.load_state_dict(task.best)
    cost = warmup_cost(warm.architecture, data=data, config=config) if is_first else 0.0
    best = rows[task.patience.best_epoch - 1]
    step = _step(rows, task.stop, best=best, architecture=network.architecture, data=data, config=config)
    yield Published(network, replace(step, cost=step.cost + cost), tuple(rows))


def untrained(data: SearchData, config: Config) -> DepthNetwork:
    """Return the whole backbone, with a head at every depth, and fresh weights."""
    heads = range(1, data.backbone.depth + 1)
    return data.machine.to_device(build(data.backbone, generator(config.seed, "weights"), heads=heads, as_torch=True))


def warmup_cost(architecture: Architecture, *, data: SearchData, config: Config) -> float:
    """Return the full-network epochs of the warm-up, whose epoch is a pass at every depth, each for itself."""
    macs = sum(costs_at(architecture.at(depth), data.manifest).macs for depth in range(1, architecture.n_blocks + 1))
    macs_full = full_network_cost(architecture, data.manifest).macs
    return full_network_epochs(config.paper.warmup_epochs, data=data, config=config, macs=macs, macs_full=macs_full)


def _step(rows: list[EpochRow], stop: Stop, *, best: EpochRow, architecture: Architecture, data: SearchData, config: Config) -> DepthStep:
    costs, macs_full = costs_at(architecture, data.manifest), full_network_cost(architecture, data.manifest).macs
    return DepthStep(
        depth=architecture.depth,
        after=0,
        epochs=len(rows),
        stopped=stop.kind,
        why=stop.why,
        val_accuracy=best.val_accuracy,
        val_correct=best.val_correct,
        n_val=best.n_val,
        curve=tuple(row.val_accuracy for row in rows),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=macs_full,
        cost=full_network_epochs(len(rows), data=data, config=config, macs=costs.macs, macs_full=macs_full),
        threads=data.machine.threads,
    )
