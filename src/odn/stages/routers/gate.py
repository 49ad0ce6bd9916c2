"""Route by learnt gates."""

from pathlib import Path

from odn.config import Config
from odn.data.batches import Images
from odn.display import phase_display
from odn.models.cost import PartMacs
from odn.models.gated import GatedNetwork
from odn.models.timing import PartTimes
from odn.search.data import SearchData
from odn.search.gates import GateCosts, Gated, GatedOutcome, shifted_outcomes, train_gates
from odn.search.policies import outcome, search
from odn.search.routing import choose_shift, exit_costs, exits_of, gate_costs, gate_curve, said_by_exits, temperatures
from odn.search.routing_target import Target
from odn.stages.routers.found import Found, Point
from odn.stages.routers.given import Supernet
from odn.stages.working import progress_key
from odn.training.checkpoint import in_progress
from odn.training.fit import EpochRow, Tick

LEAST_BUDGET = 0.05  # share of the residuals' cost that gates are trained to, where less is asked for


def fit_gates(
    supernet: Supernet, *, target: Target, times: PartTimes | None, data: SearchData, test: Images, config: Config, progress: Path
) -> Found:
    """Train gates on train, choose the shift of their scores on val, then look at test.

    Raises:
        ConfigError: no shift meets the target.
        TrainingError: a loss that is not finite.
    """
    parts: PartMacs | PartTimes = times or supernet.parts
    sizes = [supernet.network.blocks[number].in_channels for number in range(supernet.deepest)]
    macs_of_gates = [config.route.hidden * (int(size) + 1) for size in sizes]  # type: ignore[arg-type]
    macs = gate_costs(supernet.parts, depth=supernet.deepest, gates=macs_of_gates)
    costs = gate_costs(times, depth=supernet.deepest, gates=times.gates) if times else macs
    trunk, head = exit_costs(parts, supernet.network.head_depths)
    deepest = trunk[-1] + head[-1]
    aimed = _aimed(supernet, target=target, trunk=trunk, head=head, data=data, config=config, costs=costs)
    trained = _trained(supernet, costs=costs, aimed=aimed, data=data, config=config, progress=progress)
    seen = gate_curve(trained.network, data.val, costs=costs)
    found = choose_shift(seen, target, deepest=deepest)
    on_val = gate_curve(trained.network, data.val, costs=macs) if times else seen
    on_test = gate_curve(trained.network, test, costs=macs)
    trained.network.shift = found.shift
    (chosen,), (tested,) = (shifted_outcomes(trained.network, split, costs=macs, shifts=(found.shift,)) for split in (data.val, test))
    return Found(
        routes=trained.network,
        chosen=_point(chosen, tested, name="target"),
        curve=tuple(_point(val, test_, name=f"{val.shift:g}") for val, test_ in zip(on_val, on_test, strict=True)),
        spread=tuple(
            {"residuals": number, "val": val, "test": test_}
            for number, (val, test_) in enumerate(zip(chosen.n_open, tested.n_open, strict=True))
        ),
        about={
            "unit": target.unit,
            "fitted_cost": found.cost,
            "cost_of_deepest": deepest,
            "trained_to": aimed,
            "shift": found.shift,
            "opening": {str(number + 1): share for number, share in enumerate(chosen.opening)},
        },
        full_depth_epochs=trained.cost,
    )


def _aimed(
    supernet: Supernet, *, target: Target, trunk: list[float], head: list[float], data: SearchData, config: Config, costs: GateCosts
) -> float:
    """Return the mean cost that gates are trained to: the budget, or, for an accuracy, what routing by confidence takes for it.

    Raises:
        ConfigError: no gates can be so cheap, or not even routing by confidence is so accurate.
    """
    if target.accuracy is None:
        asked = target.limit(deepest=trunk[-1] + head[-1])
        closed = GatedOutcome(0.0, costs.fixed, 0, len(data.val), (), ())
        target.refuse(closed, deepest=trunk[-1] + head[-1], least=costs.fixed)
    else:
        said = said_by_exits(supernet.network, data.val)
        exits = exits_of(said, temperature=temperatures(said), trunk=trunk, head=head)
        best = search(exits, target.aim(deepest=trunk[-1] + head[-1]), quantiles=config.route.quantiles)
        target.refuse(best, deepest=trunk[-1] + head[-1], least=trunk[0])
        asked = outcome(exits, best.policy).cost
    return min(max(asked, costs.fixed + LEAST_BUDGET * sum(costs.residuals)), costs.full)


def _trained(supernet: Supernet, *, costs: GateCosts, aimed: float, data: SearchData, config: Config, progress: Path) -> Gated:
    inputs = [supernet.sha256, data.manifest.sha256, aimed, costs]
    name = f"{progress_key(config, 'seed', 'train', 'augment', 'route', inputs=inputs)}.safetensors"
    teacher = supernet.network.truncated(supernet.deepest)
    last: object = None
    epochs = config.route.epochs
    with (
        in_progress(progress / "route-gate" / name) as checkpoint,
        phase_display(depth=supernet.deepest, phase="gates", epochs=epochs) as display,
    ):
        for last in train_gates(teacher, costs=costs, budget=aimed, data=data, config=config, checkpoint=checkpoint):
            if isinstance(last, Tick):
                display.tick(epoch=last.epoch, step=last.step, steps=last.steps)
            elif isinstance(last, EpochRow):
                display.row(epoch=last.epoch, val_accuracy=last.val_accuracy, train_loss=last.train_loss)
    assert isinstance(last, Gated)
    assert isinstance(last.network, GatedNetwork)
    return last


def _point(val: GatedOutcome, test: GatedOutcome, *, name: str) -> Point:
    return Point(kind="gate", name=name, val_macs=val.cost, val_accuracy=val.accuracy, test_macs=test.cost, test_accuracy=test.accuracy)
