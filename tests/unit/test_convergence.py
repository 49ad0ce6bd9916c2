"""When a depth has been trained enough, is worth a trial anneal, is deep enough."""

import re

import pytest

from odn.searching.convergence import Trial, Tried, fit_power_law, judge, one_standard_error_depth, prospect, why_stop
from unit.search_examples import growth, search, step

RISING = [1 - 0.5 * 0.7**epoch for epoch in range(10)]  # each epoch takes 30 % of the error away


def test_a_curve_that_rises_goes_on() -> None:
    """While each two epochs take half the error away, nothing stops the stable phase."""
    assert all(why_stop(RISING[:n], growth(max_epochs=100)) is None for n in range(1, 10))


def test_no_curve_stops_before_min_epochs() -> None:
    """A flat start is no reason to stop before the least number of epochs."""
    assert why_stop([0.9] * 4, growth(min_epochs=5)) is None


def test_a_flat_curve_stops_and_says_so() -> None:
    """The last two epochs took less than a tenth of the error away."""
    stop = why_stop([0.5, 0.9, 0.9, 0.905], growth())
    assert stop is not None
    assert stop.kind == "flat"
    assert "from 10.00% to 9.50%" in stop.why


def test_a_perfect_curve_is_flat() -> None:
    """Where there is no error left there is nothing to gain."""
    stop = why_stop([0.9, 1.0, 1.0, 1.0], growth())
    assert stop is not None
    assert stop.kind == "flat"


def test_a_noisy_dip_is_not_a_plateau() -> None:
    """Improvement is measured between the best values before and within the window, not between its ends."""
    assert why_stop([0.5, 0.8, 0.95, 0.7], growth()) is None


def test_max_epochs_ends_a_rising_curve() -> None:
    """However well it rises, the stable phase has an end."""
    stop = why_stop(RISING, growth(max_epochs=10))
    assert stop is not None
    assert stop.kind == "max_epochs"


def test_a_ceiling_ahead_stops_early() -> None:
    """A curve that follows a power law to 10 % error is left when the epochs to come can no longer pay."""
    curve = [1 - (0.1 + 0.4 * epoch**-2.0) for epoch in range(1, 8)]
    stop = why_stop(curve, growth(patience=6, max_epochs=8))
    assert stop is not None
    assert stop.kind == "ceiling"


def test_the_power_law_that_made_a_curve_is_found() -> None:
    """Floor, scale and exponent come back where the exponent is on the grid."""
    law = fit_power_law([1 - (0.05 + 0.3 * epoch**-1.5) for epoch in range(1, 9)])
    assert law is not None
    assert (law.floor, law.scale, law.exponent) == pytest.approx((0.05, 0.3, 1.5), abs=1e-9)


@pytest.mark.parametrize("curve", [[0.9, 0.91, 0.92], [0.9, 0.8, 0.7, 0.6]])
def test_no_power_law_is_seen_in_too_short_or_falling_curves(curve: list[float]) -> None:
    """Four epochs at least, and an error that falls."""
    assert fit_power_law(curve) is None


def test_an_accuracy_within_reach_is_promising() -> None:
    """4 % error, of which a cooldown may take half, may reach 97 %; 8 % may not."""
    assert prospect(step(960), search()).promising
    assert not prospect(step(920), search()).promising


def test_a_curve_cut_short_is_granted_its_ceiling() -> None:
    """Where max_epochs ended a curve that still rose, what it was heading for counts."""
    curve = tuple(1 - (0.02 + 0.3 * epoch**-1.0) for epoch in range(1, 6))
    cut = step(920, curve=curve, stopped="max_epochs")
    assert prospect(cut, search()).promising
    assert "ceiling 98.00%" in prospect(cut, search()).why


def test_reaching_the_target_needs_a_trial_anneal() -> None:
    """An EMA accuracy above the target is not enough: the verdict is on the one evaluation after a cooldown."""
    assert judge(step(990), search(), trial=None).verdict == "expand"
    assert judge(step(960), search(), trial=Trial(n_correct=970, n=1000, epochs=2, cost=0.1)).verdict == "target_reached"


def test_lower_bound_asks_for_more_than_point() -> None:
    """970 of 1000 is 97 %, but its lower 95 % bound is 95.4 % where three networks may be compared with the target."""
    trial = Trial(n_correct=970, n=1000, epochs=2, cost=0.1)
    verdict = judge(step(960), search(accept="lower_bound"), trial=trial)
    assert verdict.verdict == "expand"
    assert "lower 95% bound of val accuracy (for 4 evaluations) 95.33%" in verdict.reason


def test_the_end_of_the_schedule_is_exhausted() -> None:
    """At the deepest depth a miss is said plainly."""
    verdict = judge(step(900, depth=3), search(), trial=None)
    assert verdict.verdict == "exhausted"
    assert "no deeper depth is in the schedule" in verdict.reason


def test_one_standard_error_prefers_the_shallow() -> None:
    """Within one standard error of the best the shallowest is kept; a clear gain is not given away."""
    assert one_standard_error_depth({1: 0.900, 2: 0.958, 3: 0.960}, n=1000) == 2
    assert one_standard_error_depth({1: 0.900, 2: 0.930, 3: 0.960}, n=1000) == 3


def climbing(accuracies: list[float], *, target: float) -> list[str]:
    """Judge rungs that each cost twice the one before; return the verdicts, and the last reason."""
    before: tuple[Tried, ...] = ()
    said: list[str] = []
    settings = search(mode="climb", ladder="spread", schedule=tuple(range(1, 9)), target=target)
    for rung, accuracy in enumerate(accuracies, start=1):
        found = judge(step(round(1000 * accuracy), depth=rung, size_bytes=4000 * 2**rung), settings, trial=None, before=before)
        before, said = found.tried, [*said, found.verdict, found.reason]
    return [*said[::2], said[-1]]


def test_a_climb_whose_errors_level_off_ends() -> None:
    """From the fourth rung on a power law through the errors says what the largest networks may reach."""
    *verdicts, reason = climbing([0.90, 0.935, 0.945, 0.948], target=0.97)
    assert verdicts == ["expand", "expand", "expand", "exhausted"]
    assert re.search(r"; a power law through 4 rungs has a floor of 5\.\d\d% error, so that no larger one is tried$", reason)


def test_a_climb_whose_errors_do_not_fall_ends() -> None:
    """No law is needed for that."""
    assert climbing([0.94, 0.94, 0.94, 0.93], target=0.97)[-1].endswith("the errors of 4 rungs do not fall, so that no larger one is tried")


def test_a_climb_that_may_reach_the_target_goes_on() -> None:
    """Errors that halve with every rung, and a grid, whatever its errors."""
    assert climbing([0.60, 0.80, 0.90, 0.95], target=0.99)[:-1] == ["expand"] * 4
    settings = search(mode="grid", schedule=(1, 2, 3, 4, 5))
    assert judge(step(940, depth=4), settings, trial=None).tried == ()
