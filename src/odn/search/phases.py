"""Train one phase on what a search may see."""

from collections.abc import Iterator
from pathlib import Path

from odn.config import Config
from odn.search.data import SearchData
from odn.training.loop import LABELS, EpochRow, Phase, Tick, train_phase
from odn.training.objective import Objective
from odn.training.optim import Optimiser


def run_phase(
    optimiser: Optimiser, phase: Phase, *, data: SearchData, config: Config, checkpoint: Path | None, objective: Objective = LABELS
) -> Iterator[Tick | EpochRow]:
    """Train one phase on the data and the machine of a search."""
    return train_phase(
        optimiser,
        phase=phase,
        train=data.train,
        val=data.val,
        settings=config.train,
        augment=config.augment,
        machine=data.machine,
        checkpoint=checkpoint,
        objective=objective,
    )
