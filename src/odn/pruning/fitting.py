"""Prune while training: gates on blocks and channels learn with the weights under a budget, and what they close is cut.

Source: hard-concrete gates, arXiv 1712.01312; blocks and channels together under a budget, arXiv 2204.00408 (section 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.batches import n_steps
from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.modes import prune_phases
from odn.pruning.budget import cost_coefficients, least
from odn.pruning.gates import gates_of
from odn.pruning.task import Budget, PruneTask
from odn.searching.convergence import DepthStep
from odn.searching.data import FORWARD_SHARE, SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run
from odn.searching.states import read_state, write_state
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.training.fit import EpochRow, Tick
from odn.training.seed import generator
from odn.training.state import TrainState

UNITS = {"macs": "macs", "params": "n_params", "bytes": "size_bytes"}


@dataclass(frozen=True)
class Pruned:
    """Hold what pruning leaves: a network ready for use, cut, and what may train it further."""

    state: TrainState
    step: DepthStep
    rows: tuple[EpochRow, ...]

    @property
    def network(self) -> DepthNetwork:
        """Return the network of the averaged weights."""
        return self.state.average


class Pruning:
    """Train the one depth of the schedule from fresh weights, and cut what the budget does not hold."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train and cut."""
        data, config, depth = job.data, job.config, job.depth
        yield Began(depth, "stable", config.prune.epochs)
        checkpoint = job.checkpoints.of(f"train-{depth}", *DEPENDS_ON, "prune")
        for event in train_pruned(data=data, config=config, depth=depth, checkpoint=checkpoint):
            yield Trained(event.network, Inherited(state=event.state), event.step, event.rows) if isinstance(event, Pruned) else event

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the training state of what is left."""
        assert trained.inherited.state is not None, "pruning leaves one"
        write_state(folder / "state.safetensors", trained.inherited.state)

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the training state of what is left."""
        return Inherited(state=read_state(folder / "state.safetensors", machine=data.machine))


STRATEGY = Pruning()


def train_pruned(*, data: SearchData, config: Config, depth: int, checkpoint: Path | None) -> Iterator[Tick | EpochRow | Pruned]:
    """Train `depth` blocks from fresh weights and cut them to the budget; end with `Pruned`.

    Raises:
        ConfigError: no cut is within the budget, or nothing has to be cut.
        TrainingError: a loss that is not finite.
    """
    state, steps = _fresh(data, config, depth), n_steps(data.train, batch_size=config.train.batch_size)
    budget = _budget(state.network, data=data, config=config, depth=depth)
    task = PruneTask(state, budget, data=data, config=config, depth=depth, steps=steps)
    rows: list[EpochRow] = []
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        rows += [event] if isinstance(event, EpochRow) else []
    assert task.left is not None, "the last epochs are of the cut network"
    yield Pruned(
        task.left,
        _step(task.left.network.architecture, rows, whole_cost=budget.whole_cost, data=data, config=config, depth=depth),
        tuple(rows),
    )


def _fresh(data: SearchData, config: Config, depth: int) -> TrainState:
    return TrainState.fresh(data.machine.to_device(build(data.backbone.at(depth), generator(config.seed, "weights"))))


def _budget(network: DepthNetwork, *, data: SearchData, config: Config, depth: int) -> Budget:
    """Count the cost of the network, and refuse a budget that no cut is within, or that needs none."""
    manifest, settings, gates = data.manifest, config.prune, gates_of(network)
    coefficients = cost_coefficients(network, gates, metric=settings.budget_metric, height=manifest.height, width=manifest.width)
    whole = float(getattr(full_network_cost(network.architecture, manifest), UNITS[settings.budget_metric]))
    start = float(getattr(costs_at(network.architecture, manifest), UNITS[settings.budget_metric]))
    smallest = least(gates, coefficients)
    if smallest > settings.budget * whole:
        raise ConfigError(
            f"prune.budget: {settings.budget:g} of the {settings.budget_metric} of the whole backbone "
            f"is less than the smallest cut of depth {depth} "
            f"costs, one channel in each layer; the least that can be is {-(-smallest * 10000 // whole) / 10000:g}"
        )
    if start <= settings.budget * whole:
        raise ConfigError(
            f"prune.budget: {settings.budget:g} of the {settings.budget_metric} of the whole backbone "
            f"holds all of depth {depth}, which costs "
            f"{start / whole:.4g}: nothing would be cut; lower it, or train it with search.mode climb and search.ladder prefix"
        )
    return Budget(gates, coefficients, whole, start, limit=settings.budget * whole)


def pruning_cost(architecture: Architecture, *, data: SearchData, config: Config, depth: int) -> float:
    """Return the full-network epochs of a training that ended with this architecture, counting every forward and backward pass.

    With gates each step takes the network twice; cut, it takes what is left, and a forward pass of the teacher.
    """
    dense, gated, settle = prune_phases(config.prune)
    start, left = costs_at(architecture.whole.at(depth), data.manifest).macs, costs_at(architecture, data.manifest).macs
    taught = FORWARD_SHARE * start if config.prune.distill_weight > 0 else 0.0
    macs = (dense + 2 * gated) * start + settle * (left + taught)
    return full_network_epochs(1, data=data, config=config, macs=macs, macs_full=full_network_cost(architecture, data.manifest).macs)


def _step(
    architecture: Architecture, rows: list[EpochRow], *, whole_cost: float, data: SearchData, config: Config, depth: int
) -> DepthStep:
    costs = costs_at(architecture, data.manifest)
    share = getattr(costs, UNITS[config.prune.budget_metric]) / whole_cost
    spent = f"prune.epochs {config.prune.epochs} are over"
    why = f"{spent}, and what is left costs {share:.2%} of the {config.prune.budget_metric} of the whole backbone"
    return DepthStep(
        depth=depth,
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
        macs_full=full_network_cost(architecture, data.manifest).macs,
        cost=pruning_cost(architecture, data=data, config=config, depth=depth),
        threads=data.machine.threads,
        left=architecture.depth,
    )
