"""Train a rung of the ladder: from fresh weights, with one learning-rate schedule from a short warm-up down to 0."""

from collections.abc import Iterator
from pathlib import Path

from odn.config import Config
from odn.data.batches import Images, n_steps
from odn.models.architecture import Architecture
from odn.models.ladder import ladder_of
from odn.models.network import build
from odn.searching.convergence import DepthStep
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.training.depth_task import DepthTask, Phase
from odn.training.evaluation import Evaluation
from odn.training.fit import EpochRow, Position
from odn.training.seed import generator
from odn.training.state import TrainState


class Climb:
    """Train each rung for itself: nothing is inherited."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a rung."""
        data, config, rung, rows = job.data, job.config, job.depth, []
        architecture = rung_of(rung, data=data, config=config)
        state = TrainState.fresh(data.machine.to_device(build(architecture, generator(config.seed, "weights"))))
        phase = Phase(name="anneal", depth=rung, epochs=config.climb.epochs, seed=config.seed, warmup_epochs=config.train.warmup_epochs)
        steps = n_steps(data.train, batch_size=config.train.batch_size)
        task = RungTask(state, phase, settings=config.train, machine=data.machine, steps=steps)
        checkpoint = job.checkpoints.of(f"train-{rung}", *DEPENDS_ON, "climb", inputs=[config.spreads, config.search.cost])
        yield Began(rung, "anneal", config.climb.epochs)
        for event in run(task, data=data, config=config, checkpoint=checkpoint):
            yield event
            rows += [event] if isinstance(event, EpochRow) else []
        step = _step(rung, architecture, rows, data=data, config=config)
        yield Trained(state.average.truncated(architecture.depth), Inherited(), step, tuple(rows))

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write nothing."""

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Return nothing."""
        return Inherited()


STRATEGY = Climb()


class RungTask(DepthTask):
    """Train a network at its own depth; look at val after 1, 2, 4, 8, … epochs and the last, as re-estimating BatchNorm takes time."""

    _epoch = 0

    def begin(self, position: Position) -> None:
        """Set the network to training."""
        super().begin(position)
        self._epoch = position.epoch

    def evaluate(self, *, train: Images, val: Images) -> Evaluation | None:
        """Read the averaged weights off val, where it is time to."""
        is_due = self._epoch == self.epochs or self._epoch & (self._epoch - 1) == 0
        return super().evaluate(train=train, val=val) if is_due else None


def rung_of(rung: int, *, data: SearchData, config: Config) -> Architecture:
    """Describe a rung of the configured ladder.

    Raises:
        ConfigError: networks of this family cannot be narrowed, and the ladder asks for it.
    """
    return ladder_of(data.backbone, config=config, height=data.manifest.height, width=data.manifest.width)[rung - 1]


def _step(rung: int, architecture: Architecture, rows: list[EpochRow], *, data: SearchData, config: Config) -> DepthStep:
    costs, macs_full, epochs = (
        costs_at(architecture, data.manifest),
        full_network_cost(architecture, data.manifest).macs,
        config.climb.epochs,
    )
    return DepthStep(
        depth=rung,
        after=0,
        epochs=epochs,
        stopped="max_epochs",
        why=f"climb.epochs {epochs} are over, and its learning rate is 0",
        val_accuracy=rows[-1].val_accuracy,
        val_correct=rows[-1].val_correct,
        n_val=rows[-1].n_val,
        curve=tuple(row.val_accuracy for row in rows),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=macs_full,
        cost=full_network_epochs(epochs, data=data, config=config, macs=costs.macs, macs_full=macs_full),
        threads=data.machine.threads,
    )
