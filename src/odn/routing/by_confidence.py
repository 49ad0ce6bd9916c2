"""Route by the confidence of the exits."""

from odn.config import Config
from odn.data.batches import Images
from odn.routing.calibration import calibration_error
from odn.routing.fitting import Said, as_exits, exit_costs, exits_of, routing_curve, said_by_exits, temperatures
from odn.routing.found import Found, Point
from odn.routing.given import Supernet
from odn.routing.policies import Exits, Outcome, Policy, cross_fitted, outcome, search
from odn.routing.routed import reachable
from odn.routing.targets import Target
from odn.routing.timing import PartTimes
from odn.search.data import SearchData


def fit_confidence(supernet: Supernet, *, target: Target, times: PartTimes | None, data: SearchData, test: Images, config: Config) -> Found:
    """Fit temperatures and thresholds on val, then look at test.

    Raises:
        ConfigError: no policy meets the target.
    """
    said, quantiles, depths = said_by_exits(supernet.network, data.val), config.route.quantiles, supernet.network.head_depths
    heat = temperatures(said)
    seen = _priced(said, supernet, times=None, heat=heat)
    sought = seen if times is None else _priced(said, supernet, times=times, heat=heat)
    deepest, least = float(sought.trunk[-1] + sought.head[-1]), float(sought.trunk[0] + sought.head[0])
    aim = target.aim(deepest=deepest)
    found = search(sought, aim, quantiles=quantiles)
    target.refuse(found, deepest=deepest, least=least)
    honest_accuracy, honest_cost = cross_fitted(sought, aim, quantiles=quantiles)
    curve = [one.policy for one in routing_curve(seen, quantiles=quantiles)]
    on_test = _priced(said_by_exits(supernet.network, test), supernet, times=None, heat=heat)
    chosen, tested = outcome(seen, found.policy), outcome(on_test, found.policy)
    about = {
        "unit": target.unit,
        "fitted_cost": found.cost,
        "cost_of_deepest": deepest,
        "cross_fitted_accuracy": honest_accuracy,
        "cross_fitted_cost": honest_cost,
        "calibration_error": {
            str(depth): {
                "before": calibration_error(said.floats(depth), said.answers, temperature=1.0),
                "after": calibration_error(said.floats(depth), said.answers, temperature=heat[depth]),
            }
            for depth in depths
        },
    }
    return Found(
        routes=reachable(supernet.network, as_exits(found.policy, heat)),
        chosen=_point(chosen, tested, name="target"),
        curve=tuple(_point(outcome(seen, policy), outcome(on_test, policy), name=_named(policy)) for policy in curve),
        spread=tuple(
            {"depth": depth, "threshold": threshold, "temperature": heat[depth], "val": on_val, "test": on_test_}
            for depth, threshold, on_val, on_test_ in zip(depths, found.policy, chosen.leaving, tested.leaving, strict=True)
        ),
        about=about,
        full_depth_epochs=0.0,
    )


def _priced(said: Said, supernet: Supernet, *, times: PartTimes | None, heat: dict[int, float]) -> Exits:
    """Join what the exits say with what they cost, in milliseconds where there are times."""
    trunk, head = exit_costs(times or supernet.parts, supernet.network.head_depths)
    return exits_of(said, temperature=heat, trunk=trunk, head=head)


def _point(val: Outcome, test: Outcome, *, name: str) -> Point:
    return Point(
        kind="confidence", name=name, val_macs=val.cost, val_accuracy=val.accuracy, test_macs=test.cost, test_accuracy=test.accuracy
    )


def _named(policy: Policy) -> str:
    return " ".join(f"{threshold:.4g}" for threshold in policy)
