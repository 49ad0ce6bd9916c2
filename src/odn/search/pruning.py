"""Prune while training: gates on blocks and channels learn with the weights under a budget, and what they close is cut.

Source: hard-concrete gates, arXiv 1712.01312; blocks and channels together under a budget, arXiv 2204.00408 (section 3).
"""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from odn.config import Config
from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.budget import closed_to, least, prices
from odn.models.gates import gates_of
from odn.models.network import DepthNetwork, build
from odn.models.surgery import cut
from odn.search.convergence import DepthStep
from odn.search.data import FORWARD_SHARE, SearchData, costs_at, full_depth_cost, full_depth_epochs
from odn.search.pruned_epochs import Task, gate_epoch, settle_epoch
from odn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from odn.training.hard_concrete import Scores
from odn.training.loop import EpochRow, Tick
from odn.training.optim import Optimiser
from odn.training.readout import reestimate_batchnorm
from odn.training.seed import generator

FIRST_SCORE = 2.0  # of every gate: open with a probability of 0.97
UNITS = {"macs": "macs", "params": "n_params", "bytes": "size_bytes"}


@dataclass(frozen=True)
class Pruned:
    """Hold what pruning leaves: a network ready for use, cut, and what may train it further."""

    optimiser: Optimiser
    step: DepthStep
    rows: tuple[EpochRow, ...]

    @property
    def network(self) -> DepthNetwork:
        """Return the network that was read out."""
        return self.optimiser.average


def train_pruned(*, data: SearchData, config: Config, depth: int, checkpoint: Path | None) -> Iterator[Tick | EpochRow | Pruned]:
    """Train `depth` blocks from fresh weights and cut them to the budget; end with `Pruned`.

    Raises:
        ConfigError: no cut is within the budget, or nothing has to be cut.
        TrainingError: a loss that is not finite.
    """
    optimiser = _fresh(data, config, depth)
    task = _task(optimiser.network, data=data, config=config, depth=depth)
    scores = Scores.fresh(task.gates.n, score=FIRST_SCORE, device=data.machine.device)
    dense, gated, _ = config.prune.phases
    rows: list[EpochRow] = []
    left: Optimiser | None = None
    if checkpoint is not None and checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        rows = [EpochRow(**row) for row in saved.record["rows"]]
        left = _resumed(task, optimiser, scores, saved, is_cut=len(rows) > dense + gated)
        yield from rows
    for epoch in range(len(rows) + 1, config.prune.epochs + 1):
        if epoch <= dense + gated:
            row = yield from gate_epoch(task, optimiser, scores, epoch=epoch)
        else:
            left = left or _cut_optimiser(task, optimiser, scores)
            row = yield from settle_epoch(task, left, teacher=optimiser.average, epoch=epoch)
        rows.append(row)
        if checkpoint is not None:
            tensors = optimiser.tensors() | scores.tensors()
            tensors |= {f"left.{name}": tensor for name, tensor in left.tensors().items()} if left is not None else {}
            counts = {"n_averaged": optimiser.n_averaged, "n_steps": scores.n_steps, "n_left": left.n_averaged if left is not None else 0}
            save_checkpoint(checkpoint, Checkpoint(tensors, {"rows": [asdict(row) for row in rows], **counts}))
        yield row
    assert left is not None, "the last epochs are of the cut network"
    yield Pruned(left, _step(task, left.network.architecture, rows), tuple(rows))


def _fresh(data: SearchData, config: Config, depth: int) -> Optimiser:
    architecture = Architecture.of(config, in_channels=data.manifest.channels, n_classes=data.manifest.n_classes, depth=depth)
    return Optimiser.fresh(data.machine.holding(build(architecture, generator(config.seed, "weights"))))


def _task(network: DepthNetwork, *, data: SearchData, config: Config, depth: int) -> Task:
    """Price the network, and refuse a budget that no cut is within, or that needs none."""
    manifest, settings, gates = data.manifest, config.prune, gates_of(network)
    priced = prices(network, gates, of=settings.of, height=manifest.height, width=manifest.width)
    whole = float(getattr(full_depth_cost(network.architecture, manifest), UNITS[settings.of]))
    start = float(getattr(costs_at(network.architecture, manifest), UNITS[settings.of]))
    smallest = least(gates, priced)
    if smallest > settings.budget * whole:
        raise ConfigError(
            f"prune.budget: {settings.budget:g} of the {settings.of} of the whole backbone is less than the smallest cut of depth {depth} "
            f"costs, one channel in each layer; the least that can be is {-(-smallest * 10000 // whole) / 10000:g}"
        )
    if start <= settings.budget * whole:
        raise ConfigError(
            f"prune.budget: {settings.budget:g} of the {settings.of} of the whole backbone holds all of depth {depth}, which costs "
            f"{start / whole:.4g}: nothing would be cut; lower it, or train it with search.mode scratch"
        )
    return Task(data, config, depth, gates, priced, whole, start)


def _resumed(task: Task, optimiser: Optimiser, scores: Scores, saved: Checkpoint, *, is_cut: bool) -> Optimiser | None:
    """Take over what an interrupted run kept; return the cut network's optimiser where it was cut already."""
    left = {name.removeprefix("left."): saved.tensors.pop(name) for name in list(saved.tensors) if name.startswith("left.")}
    optimiser.load(saved.tensors, n_averaged=saved.record["n_averaged"])
    scores.load(saved.tensors, n_steps=saved.record["n_steps"])
    if not is_cut:
        return None
    found = _cut_optimiser(task, optimiser, scores)
    found.load(left, n_averaged=saved.record["n_left"])
    return found


def _cut_optimiser(task: Task, optimiser: Optimiser, scores: Scores) -> Optimiser:
    """Close gates until the budget is kept and cut network, average and momentum; the ungated average is ready to teach after it."""
    machine, manifest = task.data.machine, task.data.manifest
    reestimate_batchnorm(optimiser.average, task.data.train, machine=machine)
    optimiser.average.eval()
    open_ = closed_to(task.gates, task.prices, scores.values, budget=task.budget)

    def smaller(network: DepthNetwork) -> DepthNetwork:
        return machine.holding(cut(network, task.gates, open_, height=manifest.height, width=manifest.width))

    moving = copy.deepcopy(optimiser.network)
    moving.load_state_dict({**moving.state_dict(), **optimiser.momentum})
    momentum = {name: parameter.detach().clone() for name, parameter in smaller(moving).named_parameters()}
    network, average = smaller(optimiser.network), smaller(optimiser.average).requires_grad_(False)
    return Optimiser(network=network, momentum=momentum, average=average, n_averaged=optimiser.n_averaged)


def pruning_cost(architecture: Architecture, *, data: SearchData, config: Config, depth: int) -> float:
    """Return the full-depth epochs of a training that ended with this architecture, counting every forward and backward pass.

    With gates each step takes the network twice; cut, it takes what is left, and a forward pass of the teacher.
    """
    dense, gated, settle = config.prune.phases
    start, left = costs_at(architecture.whole.at(depth), data.manifest).macs, costs_at(architecture, data.manifest).macs
    taught = FORWARD_SHARE * start if config.prune.distill_weight > 0 else 0.0
    macs = (dense + 2 * gated) * start + settle * (left + taught)
    return full_depth_epochs(1, data=data, config=config, macs=macs, macs_full=full_depth_cost(architecture, data.manifest).macs)


def _step(task: Task, architecture: Architecture, rows: list[EpochRow]) -> DepthStep:
    data, config = task.data, task.config
    costs = costs_at(architecture, data.manifest)
    share = getattr(costs, UNITS[config.prune.of]) / task.whole_cost
    why = f"prune.epochs {config.prune.epochs} are over, and what is left costs {share:.2%} of the {config.prune.of} of the whole backbone"
    return DepthStep(
        depth=task.depth,
        after=0,
        epochs=len(rows),
        stopped="max_epochs",
        why=f"{why}, within the {config.prune.budget:.2%} of prune.budget",
        val_accuracy=rows[-1].val_accuracy,
        val_correct=rows[-1].val_correct,
        n_val=rows[-1].n_val,
        curve=tuple(row.val_accuracy for row in rows),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=full_depth_cost(architecture, data.manifest).macs,
        cost=pruning_cost(architecture, data=data, config=config, depth=task.depth),
        threads=data.machine.threads,
        left=architecture.depth,
    )
