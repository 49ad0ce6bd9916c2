"""Train every depth of the schedule at once, as the exits of one network; each depth is then judged without training of its own.

Source: Once-for-All, arXiv 1908.09791; universally slimmable networks, arXiv 1903.05134.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.batches import n_steps
from odn.files import write_json
from odn.models.architecture import Architecture
from odn.models.cost import cost_of
from odn.models.network import DepthNetwork, build, empty
from odn.models.stored_networks import load_network, save_network
from odn.searching.convergence import DepthStep
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run
from odn.searching.records import write_table
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.supernet.cutting import n_groups, narrowed_architecture
from odn.supernet.sandwich import Plan
from odn.supernet.task import SupernetTask
from odn.training.evaluation import evaluate
from odn.training.fit import EpochRow, Tick
from odn.training.seed import generator
from odn.training.state import TrainState


@dataclass(frozen=True)
class Curves:
    """Hold how many images of val each exit got right after each epoch, by depth."""

    n_correct: dict[int, tuple[int, ...]]
    n_val: int


@dataclass(frozen=True)
class Supernet:
    """Hold what the joint training leaves: a network with a head at every depth of the schedule, ready for use."""

    network: DepthNetwork
    rows: tuple[EpochRow, ...]  # of the shallowest exit
    curves: Curves
    cost: float  # full-network epochs


FOLDER = "supernet"  # of the network with all exits, in the folder of each depth


class SupernetStrategy:
    """Train all depths with the first; each later depth is an exit of the same network, and trains nothing."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train all depths, or take an exit of what was trained."""
        data, config, depth = job.data, job.config, job.depth
        shared, trained = inherited.shared if inherited is not None else None, None
        if shared is None:
            yield Began(depth, "supernet", config.supernet.epochs)
            checkpoint = job.checkpoints.of(f"train-{depth}", *DEPENDS_ON, "supernet", inputs=config.search.schedule)
            for event in train_supernet(data=data, config=config, checkpoint=checkpoint):
                if isinstance(event, Supernet):
                    trained, shared = event, event.network
                else:
                    yield event
        assert shared is not None, "a training ends with its network"
        step = exit_step(shared, data=data, config=config, depth=depth, trained=trained)
        rows, curves = (trained.rows, _curves(trained)) if trained is not None else ((), ())
        yield Trained(shared.truncated(depth), Inherited(shared=shared), step, rows, curves)

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the network with all exits; where it was trained just now, the curve of each exit and what it is."""
        assert trained.inherited.shared is not None, "every depth hands it on"
        save_network(trained.inherited.shared, folder / FOLDER)
        if trained.table:
            plan = {"depths": config.search.schedule, "widths": config.supernet.widths}
            write_table(folder / FOLDER / "exits.csv", trained.table)
            write_json(folder / FOLDER / "card.json", plan | {"seed": config.seed, "data_sha256": data.manifest.sha256})

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the network with all exits."""
        return Inherited(shared=load_network(folder / FOLDER))


STRATEGY = SupernetStrategy()


def _curves(trained: "Supernet") -> tuple[dict[str, float], ...]:
    """Return accuracy on val of each exit after each epoch."""
    curves = trained.curves
    return tuple(
        {"epoch": epoch, "depth": depth, "val_accuracy": right[epoch - 1] / curves.n_val}
        for epoch in range(1, len(trained.rows) + 1)
        for depth, right in curves.n_correct.items()
    )


def train_supernet(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | EpochRow | Supernet]:
    """Train all depths at once, from fresh weights; end with the `Supernet`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    state, plan, settings = (
        TrainState.fresh(untrained_supernet(data, config)),
        plan_of(config, n_groups=n_groups(data.backbone)),
        config.train,
    )
    steps = n_steps(data.train, batch_size=settings.batch_size)
    task = SupernetTask(state, plan, settings=settings, machine=data.machine, steps=steps)
    rows: list[EpochRow] = []
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        rows += [event] if isinstance(event, EpochRow) else []
    by_depth = zip(plan.depths, task.n_correct.T.tolist(), strict=True)
    curves = Curves({depth: tuple(column) for depth, column in by_depth}, len(data.val))
    cost = supernet_cost(state.network.architecture, data=data, config=config)
    yield Supernet(network=state.average.eval(), rows=tuple(rows), curves=curves, cost=cost)


def untrained_supernet(data: SearchData, config: Config) -> DepthNetwork:
    """Return the backbone down to the last depth of the schedule, with a head at each of its depths, and fresh weights."""
    depths = config.search.schedule
    return data.machine.to_device(build(data.backbone.at(depths[-1]), generator(config.seed, "weights"), heads=depths))


def plan_of(config: Config, *, n_groups: int) -> Plan:
    """Return what the configured supernet trains together."""
    return Plan(depths=config.search.schedule, n_groups=n_groups, seed=config.seed, settings=config.supernet)


def supernet_cost(architecture: Architecture, *, data: SearchData, config: Config) -> float:
    """Return the full-network epochs of the joint training: every forward pass of every step, with the heads of all exits."""
    plan, steps = plan_of(config, n_groups=n_groups(architecture)), n_steps(data.train, batch_size=config.train.batch_size)
    passes = Counter(
        one.widths for epoch in range(1, config.supernet.epochs + 1) for step in plan.passes(epoch, steps=steps) for one in step
    )
    height, width = data.manifest.height, data.manifest.width
    macs = 0
    for widths, n_passes in passes.items():
        shapes = empty(narrowed_architecture(architecture, widths), heads=plan.depths, device="meta")
        macs += n_passes * cost_of(shapes, height, width).macs
    macs_full = full_network_cost(architecture, data.manifest).macs
    return full_network_epochs(1, data=data, config=config, macs=macs, macs_full=macs_full) / steps


def exit_step(network: DepthNetwork, *, data: SearchData, config: Config, depth: int, trained: Supernet | None) -> DepthStep:
    """Read one exit off val; `trained` is the supernet where this is the depth that its training is booked on, else None."""
    first, kept = config.search.schedule[0], data.machine.to_device(network.truncated(depth))
    seen, costs = evaluate(kept, data.val, machine=data.machine), costs_at(kept.architecture, data.manifest)
    together = f"search.mode supernet trains every depth at once, for supernet.epochs {config.supernet.epochs}"
    return DepthStep(
        depth=depth,
        after=config.depth_before(depth),
        epochs=len(trained.rows) if trained is not None else 0,
        stopped="supernet",
        why=together if depth == first else f"{together}; that is booked on depth {first}",
        val_accuracy=seen.accuracy,
        val_correct=seen.n_correct,
        n_val=seen.n,
        curve=tuple(row.val_accuracy for row in trained.rows) if trained is not None else (),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=full_network_cost(network.architecture, data.manifest).macs,
        cost=trained.cost if trained is not None else 0.0,
        threads=data.machine.threads,
    )
