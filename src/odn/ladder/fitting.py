"""Train a rung of the ladder: from fresh weights, with one learning-rate schedule from a short warm-up down to 0."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from odn.config import Config
from odn.data.batches import Images, n_steps
from odn.models.architecture import Architecture
from odn.models.ladder import ladder_of, largest
from odn.models.network import DepthNetwork, build
from odn.models.stored_networks import weights_digest
from odn.searching.convergence import COUNTED, DepthStep, measured_accuracy
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.outcome import Refinement
from odn.searching.phases import run
from odn.searching.strategy import DEPENDS_ON, Began, Checkpoints, Event, Inherited, Job, Refined, Trained
from odn.sections import AugmentConfig
from odn.training.depth_task import DepthTask, Phase
from odn.training.evaluation import Evaluation
from odn.training.fit import EpochRow, Position
from odn.training.seed import generator
from odn.training.state import TrainState


@dataclass(frozen=True)
class Annealed:
    """Hold a trained network, its epochs, and the full-network epochs that it took."""

    network: DepthNetwork
    rows: tuple[EpochRow, ...]
    cost: float


class Climb:
    """Train each rung for itself: nothing is inherited."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a rung."""
        data, config, rung = job.data, job.config, job.depth
        architecture = rung_of(rung, data=data, config=config)
        checkpoint = job.checkpoints.of(f"train-{rung}", *DEPENDS_ON, "climb", inputs=[_identity(architecture)])
        yield Began(rung, "anneal", config.climb.epochs)
        for event in annealed(architecture, data=data, config=config, rung=rung, phase="anneal", checkpoint=checkpoint):
            if isinstance(event, Annealed):
                yield Trained(event.network, Inherited(), _step(rung, event, data=data, config=config), event.rows)
            else:
                yield event

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write nothing."""

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Return nothing."""
        return Inherited()

    def refine(
        self, rung: int, accepted: DepthNetwork, *, data: SearchData, config: Config, checkpoints: Checkpoints
    ) -> Iterator[Event | Refined]:
        """Try networks between an accepted rung and the one before it, each in the middle, on a log scale, of where the answer may be.

        Where no rung was tried before it, half its cost is taken for that of one.
        """
        metric, known, before = config.search.cost, {accepted.architecture}, config.depth_before(rung)
        most = getattr(costs_at(accepted.architecture, data.manifest), COUNTED[metric])
        least = getattr(costs_at(rung_of(before, data=data, config=config), data.manifest), COUNTED[metric]) if before else most / 2
        for look in range(1, config.search.looks + 1):
            middle, size = round(math.sqrt(least * most)), {"height": data.manifest.height, "width": data.manifest.width}
            architecture = largest(data.backbone, {metric: middle}, **size)
            if architecture in known or getattr(costs_at(architecture, data.manifest), COUNTED[metric]) <= least:
                return
            known.add(architecture)
            inputs = [_identity(architecture), weights_digest(accepted)]  # what was trained by other code is not taken up
            checkpoint = checkpoints.of(f"refine-{rung}-{look}", *DEPENDS_ON, "climb", inputs=inputs, keep=True)
            yield Began(rung, "refine", config.climb.epochs)
            for event in annealed(architecture, data=data, config=config, rung=rung, phase="refine", checkpoint=checkpoint):
                if isinstance(event, Annealed):
                    refinement = _refinement(event, data=data, config=config)
                    most, least = (middle, least) if refinement.reached else (most, middle)
                    yield Refined(event.network, refinement, event.rows)
                else:
                    yield event


STRATEGY = Climb()


class RungTask(DepthTask):
    """Train a network at its own depth; look at val after 1, 2, 4, 8, … epochs and the last, as re-estimating BatchNorm takes time."""

    _epoch = 0

    def begin(self, position: Position) -> None:
        """Set the network to training."""
        super().begin(position)
        self._epoch = position.epoch

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation | None:
        """Read the averaged weights off val, where it is time to."""
        is_due = self._epoch == self.epochs or self._epoch & (self._epoch - 1) == 0
        return super().evaluate(train=train, val=val, augment=augment) if is_due else None


def rung_of(rung: int, *, data: SearchData, config: Config) -> Architecture:
    """Describe a rung of the configured ladder.

    Raises:
        ConfigError: networks of this family cannot be narrowed, and the ladder asks for it.
    """
    ladder = ladder_of(data.backbone, config=config, height=data.manifest.height, width=data.manifest.width)
    return ladder[min(rung, len(ladder)) - 1]


def annealed(
    architecture: Architecture, *, data: SearchData, config: Config, rung: int, phase: Literal["anneal", "refine"], checkpoint: Path | None
) -> Iterator[Event | Annealed]:
    """Train a network from fresh weights over `climb.epochs`; end with `Annealed`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    epochs, seed, rows = config.climb.epochs, config.seed, []
    state = TrainState.fresh(data.machine.to_device(build(architecture, generator(seed, "weights"))))
    schedule = Phase(name=phase, depth=rung, epochs=epochs, seed=seed, warmup_epochs=config.train.warmup_epochs)
    steps = n_steps(data.train, batch_size=config.train.batch_size)
    task = RungTask(state, schedule, settings=config.train, machine=data.machine, steps=steps)
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        rows += [event] if isinstance(event, EpochRow) else []
    macs, macs_full = costs_at(architecture, data.manifest).macs, full_network_cost(architecture, data.manifest).macs
    spent = full_network_epochs(epochs, data=data, config=config, macs=macs, macs_full=macs_full)
    yield Annealed(state.average.truncated(architecture.depth), tuple(rows), spent)


def _identity(architecture: Architecture) -> str:
    return str(architecture.to_dict())


def _step(rung: int, done: Annealed, *, data: SearchData, config: Config) -> DepthStep:
    architecture, last, epochs = done.network.architecture, done.rows[-1], config.climb.epochs
    costs = costs_at(architecture, data.manifest)
    return DepthStep(
        depth=rung,
        after=0,
        epochs=epochs,
        stopped="max_epochs",
        why=f"climb.epochs {epochs} are over, and its learning rate is 0",
        val_accuracy=last.val_accuracy,
        val_correct=last.val_correct,
        n_val=last.n_val,
        curve=tuple(row.val_accuracy for row in done.rows),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=full_network_cost(architecture, data.manifest).macs,
        cost=done.cost,
        threads=data.machine.threads,
    )


def _refinement(done: Annealed, *, data: SearchData, config: Config) -> Refinement:
    costs, last, search = costs_at(done.network.architecture, data.manifest), done.rows[-1], config.search
    measured, measure = measured_accuracy(last.val_correct, last.n_val, search=search)
    reached = measured >= search.target
    return Refinement(
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        epochs=config.climb.epochs,
        n_correct=last.val_correct,
        n=last.n_val,
        full_network_epochs=done.cost,
        reached=reached,
        reason=f"{measure} {measured:.2%} ({last.val_correct} of {last.n_val}) with {costs.size_bytes:,} bytes "
        f"{'reaches' if reached else 'misses'} the target {search.target:.2%}",
    )
