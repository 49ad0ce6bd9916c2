"""Route by learnt gates."""

from collections.abc import Iterator

from odn.config import Config
from odn.data.batches import Images
from odn.models.cost import PartMacs
from odn.routing.fitting import choose_shift, exit_costs, exits_of, gate_costs, gate_curve, predict_exits, temperatures
from odn.routing.found import Found, Point
from odn.routing.gate_task import GateCosts, Gated, GatedOutcome, shifted_outcomes, train_gates
from odn.routing.given import Supernet
from odn.routing.policies import outcome, search
from odn.routing.targets import Target
from odn.routing.timing import PartTimes
from odn.searching.data import SearchData
from odn.searching.strategy import Began, Checkpoints, Event

DEPENDS_ON = ("seed", "train", "augment", "route")  # settings that the gates depend on
LEAST_BUDGET = 0.05  # share of the residuals' cost that gates are trained to, where less is asked for


def fit_gates(
    supernet: Supernet,
    *,
    target: Target,
    times: PartTimes | None,
    data: SearchData,
    test: Images,
    config: Config,
    checkpoints: Checkpoints,
) -> Iterator[Event | Found]:
    """Train gates on train, choose the shift of their scores on val, then evaluate on test; end with `Found`.

    Raises:
        ConfigError: no shift meets the target.
        TrainingError: a loss that is not finite.
    """
    parts: PartMacs | PartTimes = times or supernet.parts
    sizes = [supernet.network.blocks[number].in_channels for number in range(supernet.deepest)]
    macs_of_gates = [config.route.hidden * (int(size) + 1) for size in sizes]  # type: ignore[arg-type]
    macs = gate_costs(supernet.parts, depth=supernet.deepest, gates=macs_of_gates)
    costs = gate_costs(times, depth=supernet.deepest, gates=times.gates) if times else macs
    body, head = exit_costs(parts, supernet.network.head_depths)
    deepest = body[-1] + head[-1]
    aimed = _aimed(supernet, target=target, body=body, head=head, data=data, config=config, costs=costs)
    inputs, trained = [*data.manifest.sha256.values(), aimed, costs], None
    checkpoint, teacher = checkpoints.of("route-gate", *DEPENDS_ON, inputs=inputs), supernet.network.truncated(supernet.deepest)
    yield Began(supernet.deepest, "gates", config.route.epochs)
    for event in train_gates(teacher, costs=costs, budget=aimed, data=data, config=config, checkpoint=checkpoint):
        if isinstance(event, Gated):
            trained = event
        else:
            yield event
    assert trained is not None, "a training ends with its network"
    seen = gate_curve(trained.network, data.val, costs=costs)
    found = choose_shift(seen, target, deepest=deepest)
    on_val = gate_curve(trained.network, data.val, costs=macs) if times else seen
    on_test = gate_curve(trained.network, test, costs=macs)
    trained.network.shift = found.shift
    (chosen,), (tested,) = (shifted_outcomes(trained.network, split, costs=macs, shifts=(found.shift,)) for split in (data.val, test))
    yield Found(
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
        full_network_epochs=trained.cost,
    )


def _aimed(
    supernet: Supernet, *, target: Target, body: list[float], head: list[float], data: SearchData, config: Config, costs: GateCosts
) -> float:
    """Return the mean cost that gates are trained to: the budget, or, for an accuracy, what routing by confidence takes for it.

    Raises:
        ConfigError: no gates can be so cheap, or not even routing by confidence is so accurate.
    """
    if target.accuracy is None:
        asked = target.limit(deepest=body[-1] + head[-1])
        closed = GatedOutcome(0.0, costs.fixed, 0, len(data.val), (), ())
        target.refuse(closed, deepest=body[-1] + head[-1], least=costs.fixed)
    else:
        predictions = predict_exits(supernet.network, data.val)
        exits = exits_of(predictions, temperature=temperatures(predictions), body=body, head=head)
        best = search(exits, target.aim(deepest=body[-1] + head[-1]), quantiles=config.route.quantiles)
        target.refuse(best, deepest=body[-1] + head[-1], least=body[0])
        asked = outcome(exits, best.policy).cost
    return min(max(asked, costs.fixed + LEAST_BUDGET * sum(costs.residuals)), costs.full)


def _point(val: GatedOutcome, test: GatedOutcome, *, name: str) -> Point:
    return Point(kind="gate", name=name, val_macs=val.cost, val_accuracy=val.accuracy, test_macs=test.cost, test_accuracy=test.accuracy)
