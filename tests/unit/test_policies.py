"""Thresholds of exits are searched on numbers alone: budgets are kept, no single exit is better, small cases are exact."""

import re
from itertools import product

import numpy as np
import pytest

from odn.cli import main
from odn.errors import ConfigError
from odn.routing.calibration import calibration_error, fit_temperature, probabilities
from odn.routing.policies import ALWAYS, NEVER, Aim, Exits, accuracy_floor, alone, budget, candidates, cross_fitted, outcome, search
from odn.routing.targets import Target
from unit.search_examples import PARAMS

FLAGS = "--accuracy, --macs and --latency-ms"


def drawn(*, n_exits: int, n_images: int = 200, seed: int = 0) -> Exits:
    """Draw exits that get better and dearer, whose confidence tells something of their being right."""
    draws = np.random.default_rng(seed)
    skill, ease = np.linspace(0.6, 0.95, n_exits)[:, None], draws.random(n_images)
    is_right = draws.random((n_exits, n_images)) < skill * (0.5 + 0.5 * ease)
    confidence = np.clip(0.3 + 0.3 * ease + 0.2 * is_right + 0.1 * draws.random((n_exits, n_images)), 0, 1)
    return Exits(confidence, is_right, np.linspace(10, 80, n_exits), np.ones(n_exits))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [12, 25, 47.5, 81])
def test_a_budget_is_never_exceeded_and_no_single_exit_is_better(seed: int, limit: float) -> None:
    """On the images that it was fitted on."""
    exits = drawn(n_exits=6, seed=seed)
    found = search(exits, budget(limit), quantiles=12)
    assert found.cost <= limit
    statics = [outcome(exits, alone(exits, number)) for number in range(6)]
    assert found.n_correct >= max(one.n_correct for one in statics if one.cost <= limit)
    assert all(0 <= threshold <= 1 for threshold in found.policy)


@pytest.mark.parametrize("aim", [accuracy_floor(0.7), budget(30)], ids=["floor", "budget"])
def test_three_exits_are_searched_exactly(aim: Aim) -> None:
    """What is found is as good as the best of all policies of the candidates."""
    exits = drawn(n_exits=3)
    tried = candidates(exits, quantiles=8)
    every = [outcome(exits, policy) for policy in product(*tried)]
    assert aim(search(exits, aim, quantiles=8)) == min(map(aim, every))


def test_more_exits_are_searched_well() -> None:
    """Of four exits, all policies are no better by more than one image in two hundred."""
    exits, limit = drawn(n_exits=4), 35
    every = [outcome(exits, policy) for policy in product(*candidates(exits, quantiles=6)[:3], [ALWAYS])]
    best = max(one.n_correct for one in every if one.cost <= limit)
    assert search(exits, budget(limit), quantiles=6).n_correct >= best - 1


def test_the_same_images_give_the_same_policy() -> None:
    """Nothing is drawn."""
    assert search(drawn(n_exits=5), budget(40), quantiles=12) == search(drawn(n_exits=5), budget(40), quantiles=12)


def test_a_head_that_is_passed_by_costs_nothing() -> None:
    """Threshold 1 at an exit spares its head; any other pays it for each image that comes by."""
    exits = drawn(n_exits=3)
    assert outcome(exits, (NEVER, NEVER, ALWAYS)).cost == exits.body[2] + exits.head[2]
    assert outcome(exits, (0.9999, NEVER, ALWAYS)).cost == exits.body[2] + exits.head[0] + exits.head[2]


def test_cross_fitting_is_the_sober_number() -> None:
    """With nothing but luck to fit to, the fit's own accuracy is better than that on images it has not seen."""
    draws = np.random.default_rng(0)
    exits = Exits(draws.random((4, 60)), draws.random((4, 60)) < 0.5, np.arange(1.0, 5.0), np.zeros(4))
    fitted = search(exits, budget(4.0), quantiles=16)
    assert cross_fitted(exits, budget(4.0), quantiles=16)[0] < fitted.accuracy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    """Labels drawn from softened logits give the temperature back, and a small calibration error."""
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(20_000, 5)) * 2
    chances = probabilities(logits, temperature=temperature)
    labels = (chances.cumsum(axis=1) < draws.random((20_000, 1))).sum(axis=1)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibration_error(logits, labels, temperature=found) < 0.02


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs exactly one of --accuracy, --macs and --latency-ms; got none"),
        ({"accuracy": 0.9, "macs": 0.5}, "exactly one of --accuracy, --macs and --latency-ms; got accuracy 0.9, macs 0.5"),
        ({"accuracy": 1.1}, "--accuracy: expected a fraction above 0 and at most 1; got 1.1"),
        ({"macs": 0.0}, "--macs: expected a number above 0 and at most 1e+15; got 0"),
        ({"latency_ms": float("inf")}, "--latency-ms: expected a number above 0 and at most 1e+09; got inf"),
    ],
)
def test_a_target_is_one_and_in_range(given: dict[str, float], message: str) -> None:
    """What contradicts itself is refused."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        Target(**given)


def test_what_cannot_be_had_is_told_with_what_can() -> None:
    """Too small a budget names the cheapest exit, too high an accuracy the best that was found."""
    exits = drawn(n_exits=3)
    small, high = Target(macs=0.05), Target(accuracy=0.999)
    with pytest.raises(ConfigError, match="asks for 4.05 MACs an image, and the cheapest routing takes 11 MACs, --macs 0.1358"):
        small.refuse(search(exits, small.aim(deepest=81), quantiles=4), deepest=81, least=11)
    with pytest.raises(ConfigError, match=r"--accuracy 0.999 cannot be reached on val: the most accurate routing reaches 0\.\d+ \("):
        high.refuse(search(exits, high.aim(deepest=81), quantiles=4), deepest=81, least=11)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--accuracy", "nan"), "--accuracy: expected a fraction above 0 and at most 1; got nan"),
        (("--accuracy", "inf"), "--accuracy: expected a fraction above 0 and at most 1; got inf"),
        (("--accuracy=-0.5",), "--accuracy: expected a fraction above 0 and at most 1; got -0.5"),
        (("--accuracy", "0"), "--accuracy: expected a fraction above 0 and at most 1; got 0"),
        (("--macs", "nan"), "--macs: expected a number above 0 and at most 1e+15; got nan"),
        (("--macs=-inf",), "--macs: expected a number above 0 and at most 1e+15; got -inf"),
        (("--macs", "1e300"), "--macs: expected a number above 0 and at most 1e+15; got 1e+300"),
        (("--latency-ms", "0"), "--latency-ms: expected a number above 0 and at most 1e+09; got 0"),
        (("--latency-ms", "1e999"), "--latency-ms: expected a number above 0 and at most 1e+09; got inf"),
        (("--macs", "0.5", "--macs", "0.2"), "--macs: stands 2 times, with 0.5, 0.2; keep one"),
        (("--latency-ms", "1", "--latency-ms", "1"), "--latency-ms: stands 2 times, with 1, 1; keep one"),
        (
            ("--accuracy", "0.9", "--macs", "0.2"),
            f"odn route needs exactly one of {FLAGS}; got accuracy 0.9, macs 0.2",
        ),
        ((), f"odn route needs exactly one of {FLAGS}; got none"),
    ],
)
def test_the_command_refuses_in_one_line(flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read."""
    assert main(["route", "--params", str(PARAMS), *flags]) == 2
    assert capsys.readouterr() == ("", f"odn: {message}\n")
