"""Route by the confidence of the exits."""

from odn.config import Config
from odn.data.batches import Images
from odn.routing.calibration import calibration_error
from odn.routing.fitting import Predictions, as_exits, exit_costs, exits_of, predict_exits, routing_curve, temperatures
from odn.routing.found import Found, Point
from odn.routing.given import Supernet
from odn.routing.policies import Exits, Outcome, Policy, cross_fitted, outcome, search
from odn.routing.routed import reachable
from odn.routing.targets import Target
from odn.routing.timing import PartTimes
from odn.searching.data import SearchData


def fit_confidence(supernet: Supernet, *, target: Target, times: PartTimes | None, data: SearchData, test: Images, config: Config) -> Found:
    """Fit temperatures and thresholds on val, then evaluate on test.

    Raises:
        ConfigError: no policy meets the target.
    """
    predictions, quantiles, depths = predict_exits(supernet.network, data.val), config.route.quantiles, supernet.network.head_depths
    temperature = temperatures(predictions)
    seen = _with_costs(predictions, supernet, times=None, temperature=temperature)
    sought = seen if times is None else _with_costs(predictions, supernet, times=times, temperature=temperature)
    deepest, least = float(sought.body[-1] + sought.head[-1]), float(sought.body[0] + sought.head[0])
    aim = target.aim(deepest=deepest)
    found = search(sought, aim, quantiles=quantiles)
    target.refuse(found, deepest=deepest, least=least)
    honest_accuracy, honest_cost = cross_fitted(sought, aim, quantiles=quantiles)
    curve = [one.policy for one in routing_curve(seen, quantiles=quantiles)]
    on_test = _with_costs(predict_exits(supernet.network, test), supernet, times=None, temperature=temperature)
    chosen, tested = outcome(seen, found.policy), outcome(on_test, found.policy)
    about = {
        "unit": target.unit,
        "fitted_cost": found.cost,
        "cost_of_deepest": deepest,
        "cross_fitted_accuracy": honest_accuracy,
        "cross_fitted_cost": honest_cost,
        "calibration_error": {
            str(depth): {
                "before": calibration_error(predictions.floats(depth), predictions.answers, temperature=1.0),
                "after": calibration_error(predictions.floats(depth), predictions.answers, temperature=temperature[depth]),
            }
            for depth in depths
        },
    }
    return Found(
        routes=reachable(supernet.network, as_exits(found.policy, temperature)),
        chosen=_point(chosen, tested, name="target"),
        curve=tuple(_point(outcome(seen, policy), outcome(on_test, policy), name=_named(policy)) for policy in curve),
        spread=tuple(
            {"depth": depth, "threshold": threshold, "temperature": temperature[depth], "val": on_val, "test": on_test_}
            for depth, threshold, on_val, on_test_ in zip(depths, found.policy, chosen.leaving, tested.leaving, strict=True)
        ),
        about=about,
        full_network_epochs=0.0,
    )


def _with_costs(predictions: Predictions, supernet: Supernet, *, times: PartTimes | None, temperature: dict[int, float]) -> Exits:
    """Join what the exits say with what they cost, in milliseconds where there are times."""
    body, head = exit_costs(times or supernet.parts, supernet.network.head_depths)
    return exits_of(predictions, temperature=temperature, body=body, head=head)


def _point(val: Outcome, test: Outcome, *, name: str) -> Point:
    return Point(
        kind="confidence", name=name, val_macs=val.cost, val_accuracy=val.accuracy, test_macs=test.cost, test_accuracy=test.accuracy
    )


def _named(policy: Policy) -> str:
    return " ".join(f"{threshold:.4g}" for threshold in policy)
