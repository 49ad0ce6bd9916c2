"""Reduce the depth: when one is accepted, try the one before it, distilled from the accepted network, while that is good enough.

Each try is one more evaluation on val, beyond those of the search.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.searching.convergence import DepthStep, judge
from odn.searching.data import SearchData
from odn.searching.growth import Cooled, cool_down
from odn.searching.outcome import DepthReduction
from odn.searching.teaching import as_teacher
from odn.training.fit import EpochRow, Tick
from odn.training.state import TrainState


@dataclass(frozen=True)
class Reduced:
    """Hold what a try leaves: the cooled network, and what is made of it."""

    cooled: Cooled
    reduction: DepthReduction


def depths_to_try(config: Config, depth: int) -> tuple[int, ...]:
    """List the scheduled depths before the accepted one, the nearest first; none where `search.reduce_depth` is off."""
    return tuple(reversed([one for one in config.search.schedule if one < depth])) if config.search.reduce_depth else ()


def exit_of(state: TrainState, depth: int) -> TrainState:
    """Return the part of a training state up to its exit at `depth`, as a training state of its own.

    Raises:
        ValueError: it has no head there.
    """
    network, average = state.network.truncated(depth), state.average.truncated(depth).requires_grad_(False)
    momentum = {name: state.momentum[name].clone() for name, _ in network.named_parameters()}
    return TrainState(network=network, momentum=momentum, average=average, n_averaged=state.n_averaged)


def try_shallower(
    state: TrainState, *, teacher: DepthNetwork, step: DepthStep, data: SearchData, config: Config, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Reduced]:
    """Cool a depth's training state down for `distill.reduce_epochs` with `teacher`, evaluate on val once, and end with `Reduced`.

    `step` is what the depth's own training gave. It is kept where the verdict of the search holds: target, accept and confidence.
    """
    taught_by = as_teacher(teacher, machine=data.machine)
    epochs = config.distill.reduce_epochs
    cooled: Cooled | None = None
    for event in cool_down(state, data=data, config=config, name="reduce", epochs=epochs, checkpoint=checkpoint, teacher=taught_by):
        if isinstance(event, Cooled):
            cooled = event
        else:
            yield event
    assert cooled is not None, "a cooldown ends with its network"
    trial = cooled.trial
    verdict = judge(step, config.search, trial=trial)
    reduction = DepthReduction(
        depth=step.depth,
        epochs=trial.epochs,
        n_correct=trial.n_correct,
        n=trial.n,
        full_network_epochs=trial.cost,
        reached=verdict.reached,
        reason=f"{verdict.reason}, distilled from depth {teacher.depth}",
    )
    yield Reduced(cooled=cooled, reduction=reduction)
