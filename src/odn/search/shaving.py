"""Shave: when a depth is accepted, try the depth before it, taught by the accepted network, while what comes out is good enough.

Each try is one more look at val, beyond those of the search.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.search.convergence import DepthStep, judge
from odn.search.data import SearchData
from odn.search.growth import Cooled, cool_down
from odn.search.outcome import Shave
from odn.search.teaching import as_teacher
from odn.training.fit import EpochRow, Tick
from odn.training.state import TrainState


@dataclass(frozen=True)
class Shaved:
    """Hold what a try leaves: the cooled network, and what is made of it."""

    cooled: Cooled
    shave: Shave


def depths_to_try(config: Config, depth: int) -> tuple[int, ...]:
    """List the scheduled depths before the accepted one, the nearest first; none where `search.shave` is off."""
    return tuple(reversed([one for one in config.search.schedule if one < depth])) if config.search.shave else ()


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
) -> Iterator[Tick | EpochRow | Shaved]:
    """Cool a depth's training state down for `distill.shave_epochs` with `teacher`, look at val once, and end with `Shaved`.

    `step` is what the depth's own training gave. It is kept where the verdict of the search holds: target, accept and confidence.
    """
    taught_by = as_teacher(teacher, machine=data.machine)
    epochs = config.distill.shave_epochs
    cooled: Cooled | None = None
    for event in cool_down(state, data=data, config=config, name="shave", epochs=epochs, checkpoint=checkpoint, teacher=taught_by):
        if isinstance(event, Cooled):
            cooled = event
        else:
            yield event
    assert cooled is not None, "a cooldown ends with its network"
    probe = cooled.probe
    verdict = judge(step, config.search, probe=probe)
    shave = Shave(
        depth=step.depth,
        epochs=probe.epochs,
        n_correct=probe.n_correct,
        n=probe.n,
        full_depth_epochs=probe.cost,
        reached=verdict.reached,
        reason=f"{verdict.reason}, taught by depth {teacher.depth}",
    )
    yield Shaved(cooled=cooled, shave=shave)
