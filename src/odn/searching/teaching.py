"""Who teaches a depth, as `search.distill` says, what it learns from whom, and what that costs.

`shallower`: the averaged network of the depth before, as it was when that depth was left (Furlanello et al., arXiv 1805.04770);
`exits`: the head of a depth teaches the one of the depth before, in the same network (Zhang et al., arXiv 1905.08094);
`full`: a full-depth teacher, trained first; `models:/…`: a network from the registry, which a stage brings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from odn.config import Config
from odn.data.dataset import Manifest
from odn.errors import DataError
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.searching.data import FORWARD_SHARE, SearchData, costs_at, full_network_epochs
from odn.searching.phases import run_phase
from odn.training.depth_task import Phase
from odn.training.device import Machine
from odn.training.fit import EpochRow, Tick
from odn.training.objective import Objective, Teacher
from odn.training.seed import generator
from odn.training.state import TrainState


@dataclass(frozen=True)
class TrainedTeacher:
    """Hold a full-depth teacher, what it got right on val, and what it cost in full-network epochs."""

    network: DepthNetwork
    rows: tuple[EpochRow, ...]
    cost: float


def comes_from_outside(config: Config) -> bool:
    """Tell whether one teacher teaches every depth: it is there before the first."""
    return config.search.distill not in {"none", "shallower", "exits"}


def teacher_of(config: Config, *, before: DepthNetwork | None, outside: DepthNetwork | Teacher | None, machine: Machine) -> Teacher | None:
    """Return who teaches a depth that grows from the averaged network `before`; None where nobody does.

    Raises:
        ValueError: a teacher is to come from outside, and none is given.
    """
    if config.search.distill == "shallower":
        return None if before is None else as_teacher(before, machine=machine)
    if not comes_from_outside(config):
        return None
    if outside is None:
        raise ValueError(f"search.distill {config.search.distill}: a teacher must be given")
    return outside if isinstance(outside, Teacher) else as_teacher(outside, machine=machine)


def as_teacher(network: DepthNetwork, *, machine: Machine) -> Teacher:
    """Return a copy that holds still: no gradient, eval mode, the head at its depth alone."""
    return Teacher(machine.to_device(network.truncated(network.depth)).requires_grad_(False).eval())


def normalising(teacher: Teacher, *, mean: tuple[float, ...], std: tuple[float, ...], data: SearchData) -> Teacher:
    """Let a teacher that was trained on images normalised by `mean` and `std` (C) see a batch of `data` as it is used to."""
    if (mean, std) == (data.manifest.mean, data.manifest.std):
        return teacher

    def column(values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=data.machine.device).view(1, -1, 1, 1)

    scale, shift = column(data.manifest.std) / column(std), (column(data.manifest.mean) - column(mean)) / column(std)
    return Teacher(teacher.network, scale=scale, shift=shift)


def require_fit(*, name: str, classes: tuple[str, ...], channels: int, height: int, width: int, manifest: Manifest) -> None:
    """Refuse a teacher of another task.

    Raises:
        DataError: its classes, channels or image size are not those of the data.
    """
    size = f"{channels} x {height} x {width}"
    own_size = f"{manifest.channels} x {manifest.height} x {manifest.width}"
    for what, theirs, ours in (("classes", _shown(classes), _shown(manifest.classes)), ("images (C x H x W)", size, own_size)):
        if theirs != ours:
            raise DataError(f"search.distill: {name} knows {what} {theirs}, and the data has {ours}; name a teacher of the same task")
    if classes != manifest.classes:
        raise DataError(f"search.distill: {name} has other classes than the data, or in another order; name a teacher of the same task")


def _shown(classes: tuple[str, ...]) -> str:
    more = f", … ({len(classes)})" if len(classes) > 12 else ""
    return ", ".join(classes[:12]) + more


def objective_of(config: Config, network: DepthNetwork, *, teacher: Teacher | None, aux_depth: int = 0) -> Objective:
    """Return what a network trains for: with `exits` its own head teaches the one below."""
    below = [depth for depth in network.head_depths if depth < network.depth]
    return Objective(
        aux_depth=aux_depth,
        exit_depth=max(below, default=0) if config.search.distill == "exits" else 0,
        teacher=teacher,
        weight=config.distill.weight,
        temperature=config.distill.temperature,
    )


def pass_macs(architecture: Architecture, *, teacher: Teacher | None, manifest: Manifest) -> float:
    """Return the MACs of a pass, in MACs of a forward pass that is trained on: a teacher's forward alone counts a third."""
    macs = costs_at(architecture, manifest).macs
    return macs if teacher is None else macs + FORWARD_SHARE * costs_at(teacher.network.architecture, manifest).macs


def train_teacher(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | EpochRow | TrainedTeacher]:
    """Train the whole backbone from fresh weights for `distill.epochs`, the rate falling to zero; end with `TrainedTeacher`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    architecture, depth = data.backbone, data.backbone.depth
    state = TrainState.fresh(data.machine.to_device(build(architecture, generator(config.seed, "weights"))))
    warmup_epochs, epochs = config.train.warmup_epochs, config.distill.epochs
    phase = Phase(name="teacher", depth=depth, epochs=epochs, seed=config.seed, warmup_epochs=warmup_epochs)
    rows: list[EpochRow] = []
    for event in run_phase(state, phase, data=data, config=config, checkpoint=checkpoint):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
    spent = full_network_epochs(epochs, data=data, config=config, macs=1, macs_full=1)
    yield TrainedTeacher(network=state.average.truncated(depth), rows=tuple(rows), cost=spent)
