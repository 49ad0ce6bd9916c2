"""Fit a task on what a search may see."""

from collections.abc import Iterator
from pathlib import Path

from odn.config import Config
from odn.data.batches import n_steps
from odn.searching.data import SearchData
from odn.training.depth_task import DepthTask, Phase
from odn.training.fit import EpochRow, Task, Tick, fit
from odn.training.state import TrainState


def run(task: Task, *, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | EpochRow]:
    """Fit a task on the data and the machine of a search."""
    yield from fit(
        task,
        train=data.train,
        val=data.val,
        settings=config.train,
        augment=config.augment,
        machine=data.machine,
        checkpoint=checkpoint,
    )


def run_phase(state: TrainState, phase: Phase, *, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | EpochRow]:
    """Train one phase of a network at its own depth."""
    steps = n_steps(data.train, batch_size=config.train.batch_size)
    task = DepthTask(state, phase, settings=config.train, machine=data.machine, steps=steps)
    yield from run(task, data=data, config=config, checkpoint=checkpoint)
