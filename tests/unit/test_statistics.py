"""How sure a count of right answers is."""

import pytest

from odn.searching.statistics import mcnemar_p, standard_error, wilson_interval


@pytest.mark.parametrize(
    ("n_correct", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (9931, 10000, 0.9913, 0.9945), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_agrees_with_published_values(n_correct: int, n: int, low: float, high: float) -> None:
    """The last row is Newcombe's worked example (1998); the others follow from the formula; four digits are published."""
    assert wilson_interval(n_correct, n, confidence=0.95) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_widens_with_confidence() -> None:
    """More confidence needs more room on both sides."""
    narrow, wide = (wilson_interval(95, 100, confidence=confidence) for confidence in (0.9, 0.99))
    assert wide[0] < narrow[0] < 0.95 < narrow[1] < wide[1]


@pytest.mark.parametrize(("n_correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(n_correct: int, n: int) -> None:
    """A caller's mistake is a ValueError that shows the counts."""
    with pytest.raises(ValueError, match=f"{n_correct} of {n}"):
        wilson_interval(n_correct, n, confidence=0.95)


def test_standard_error_is_the_binomial_one() -> None:
    """sqrt(p (1 - p) / n), exact at one half."""
    assert standard_error(0.5, 100) == 0.05


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int, p: float) -> None:
    """Two-sided: twice the smaller tail of a fair coin, at most 1; it does not matter which classifier comes first."""
    assert mcnemar_p(first, second) == mcnemar_p(second, first) == p
