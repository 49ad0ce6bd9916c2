"""Decide: has a depth converged, is it worth a trial anneal, is it deep enough. Pure functions on plain numbers, no torch.

What a depth's training leaves is a `DepthStep`, which knows no target; what is made of it, given a target, is a `Verdict`.
A curve is the accuracy of the averaged weights on val after each epoch of the stable phase.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from odn.records import Amount, Count, Fraction, Interval, Positive, Record
from odn.searching.statistics import standard_error, wilson_interval
from odn.sections import GrowthConfig, SearchConfig

LEAST_POINTS = 4  # of a curve that a power law is fitted to
COUNTED = {"bytes": "size_bytes", "macs": "macs", "params": "n_params"}  # setting search.cost: field of a record
EXPONENTS = [0.25 * k for k in range(1, 13)]  # of the power law that are tried


@dataclass(frozen=True, kw_only=True)
class DepthStep(Record):
    """Hold what training one depth gave: the content of a depth's metrics.json."""

    depth: Positive
    after: Count  # the depth that it grew from; 0 for none
    epochs: Count  # 0 for an exit of a supernet, whose training is booked on the first depth
    stopped: Literal["flat", "ceiling", "max_epochs", "supernet"]
    why: str
    val_accuracy: Fraction  # of the averaged weights after the last epoch
    val_correct: Count
    n_val: Positive
    curve: tuple[Fraction, ...]
    n_params: Positive
    size_bytes: Positive
    macs: Positive
    macs_full: Positive
    cost: Amount  # full-network epochs that training this depth took
    threads: Positive = 1  # of the processor; another number gives other bytes
    left: Positive | None = None  # blocks that are left of it; None where no block or channel was cut

    @property
    def kept(self) -> int:
        """Count the blocks of the network that training left: the depth, but for what was cut."""
        return self.depth if self.left is None else self.left

    @model_validator(mode="after")
    def _is_counted(self) -> Self:
        if self.val_correct > self.n_val or abs(self.val_accuracy * self.n_val - self.val_correct) > 1:
            raise ValueError(f"val_accuracy: {self.val_accuracy!r} is not {self.val_correct} of {self.n_val}")
        return self


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Hold the one evaluation on val that a cooldown earns."""

    n_correct: int
    n: int
    epochs: int
    cost: float  # full-network epochs


@dataclass(frozen=True, kw_only=True)
class Tried(Record):
    """Hold what a rung costs, by `search.cost`, and the accuracy, or bound, that was compared with the target."""

    cost: Positive
    measured: Fraction


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """Say what becomes of a depth, and why: the content of verdict.json."""

    depth: Positive
    verdict: Literal["expand", "target_reached", "exhausted"]
    reason: str
    reached: bool  # whether this depth is good enough; a grid goes on to the next all the same
    target: Fraction
    accept: Literal["point", "lower_bound"]
    val_accuracy: Fraction  # of the trial anneal where there was one, else of the averaged weights
    val_interval: Interval
    ema_accuracy: Fraction
    annealed: bool
    anneal_epochs: Count
    cost: Amount  # full-network epochs that the trial anneal took
    tried: tuple[Tried, ...] = ()  # of a climb: the rungs so far, this one last

    @property
    def shown(self) -> str:
        """Say what the depth itself is worth: `target_reached` also where a grid goes on all the same."""
        return "target_reached" if self.reached else self.verdict

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.reached != (self.verdict == "target_reached") and not (self.reached and self.verdict == "expand"):
            raise ValueError(f"reached: {self.reached} contradicts the verdict {self.verdict}")
        return self


@dataclass(frozen=True)
class Stop:
    """Say why the stable phase ends."""

    kind: Literal["flat", "ceiling", "max_epochs"]
    why: str


def why_stop(curve: Sequence[float], growth: GrowthConfig) -> Stop | None:
    """Tell whether the stable phase ends after these epochs; None while it should go on."""
    n = len(curve)
    if n < growth.min_epochs:
        return None
    if n > growth.patience:
        before = 1 - max(curve[: -growth.patience])
        now = 1 - max(curve[-growth.patience :])
        if now >= (1 - growth.min_gain) * before:
            last = "epoch" if growth.patience == 1 else f"{growth.patience} epochs"
            return Stop(
                "flat",
                f"the last {last} took the error on val from {before:.2%} to {now:.2%}, "
                f"less than the {growth.min_gain:.0%} off that growth.min_gain asks for",
            )
    if n >= growth.max_epochs:
        return Stop("max_epochs", f"growth.max_epochs {growth.max_epochs} is reached and the curve still rises")
    law = fit_power_law(curve)
    if law is not None:
        now, then = 1 - curve[-1], law.error_at(growth.max_epochs)
        if then >= (1 - growth.min_gain) * now:
            return Stop(
                "ceiling",
                f"a power law through the curve foresees an error of {then:.2%} after {growth.max_epochs} epochs, "
                f"against {now:.2%} now: less than the {growth.min_gain:.0%} off that growth.min_gain asks for",
            )
    return None


@dataclass(frozen=True)
class PowerLaw:
    """Hold error(epoch) = floor + scale * epoch ** -exponent."""

    floor: float
    scale: float
    exponent: float

    def error_at(self, epoch: int) -> float:
        """Return the error that is foreseen after so many epochs."""
        return float(self.floor + self.scale * epoch**-self.exponent)


def fit_power_law(curve: Sequence[float], *, at: Sequence[float] | None = None) -> PowerLaw | None:
    """Fit a falling power law to a curve's errors by least squares; None where the curve is too short or none fits.

    The curve stands at the places `at`, the first of them 1, or at 1, 2, 3, ….

    For each exponent of a small grid the fit of floor and scale is a straight line; the floor is kept at 0 or above.
    Source: learning curves follow power laws (Hestness et al., arXiv 1712.00409).
    """
    if len(curve) < LEAST_POINTS:
        return None
    errors, places = [1 - accuracy for accuracy in curve], at if at is not None else range(1, len(curve) + 1)
    best: tuple[float, PowerLaw] | None = None
    for exponent in EXPONENTS:
        xs = [float(place**-exponent) for place in places]
        mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(errors) / len(errors)
        variance = math.fsum((x - mean_x) ** 2 for x in xs)
        scale = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, errors, strict=True)) / variance
        floor = mean_y - scale * mean_x
        if floor < 0:
            floor, scale = 0.0, math.fsum(x * y for x, y in zip(xs, errors, strict=True)) / math.fsum(x * x for x in xs)
        if scale <= 0:
            continue
        residual = math.fsum((floor + scale * x - y) ** 2 for x, y in zip(xs, errors, strict=True))
        if best is None or residual < best[0]:
            best = (residual, PowerLaw(floor, scale, exponent))
    return best[1] if best is not None else None


@dataclass(frozen=True)
class Prospect:
    """Say whether a depth is worth a trial anneal."""

    promising: bool
    why: str


def prospect(step: DepthStep, search: SearchConfig) -> Prospect:
    """Tell whether a cooldown could lift the depth to the target.

    The EMA accuracy, or where the curve still rose the ceiling of its power law, is granted the gain that a cooldown is
    expected to bring at most: `cooldown_gain` of the error. What stays below the target even so is not worth a trial anneal.
    """
    reach, basis = step.val_accuracy, f"the EMA accuracy {step.val_accuracy:.2%}"
    law = fit_power_law(step.curve) if step.stopped == "max_epochs" else None
    if law is not None and 1 - law.floor > reach:
        reach, basis = 1 - law.floor, f"the ceiling {1 - law.floor:.2%} of its curve"
    hoped = 1 - (1 - reach) * (1 - search.cooldown_gain)
    measure = hoped
    if search.accept == "lower_bound":
        measure = measured_accuracy(round(hoped * step.n_val), step.n_val, search=search)[0]
    promising = measure >= search.target
    bound = " (lower bound)" if search.accept == "lower_bound" else ""
    return Prospect(
        promising,
        f"{basis} plus the gain of a cooldown gives at most {measure:.2%}{bound}, "
        f"{'which may reach' if promising else 'below'} the target {search.target:.2%}",
    )


def wants_trial(step: DepthStep, search: SearchConfig) -> bool:
    """Tell whether a cooldown follows before the depth is judged."""
    return search.meaning.trial and prospect(step, search).promising


def out_of_reach(tried: Sequence[Tried], *, target: float) -> str | None:
    """Say why no larger rung would reach the target; None where one may, or too few rungs were tried to tell.

    Source: error falls with size as a power law to a floor (Rosenfeld et al., arXiv 1909.12673, section 4).
    """
    if len(tried) < LEAST_POINTS:
        return None
    law = fit_power_law([one.measured for one in tried], at=[one.cost / tried[0].cost for one in tried])
    if law is None:
        return f"the errors of {len(tried)} rungs do not fall, so that no larger one is tried"
    if law.floor > 1 - target:
        return f"a power law through {len(tried)} rungs has a floor of {law.floor:.2%} error, so that no larger one is tried"
    return None


def judge(step: DepthStep, search: SearchConfig, *, trial: Trial | None, before: Sequence[Tried] = ()) -> Verdict:
    """Decide on a depth: `target_reached`, else `expand`, or `exhausted` at the end of the schedule, or of what a climb may reach.

    `before` are the rungs below, of a climb.
    """
    n_correct, n = (trial.n_correct, trial.n) if trial else (step.val_correct, step.n_val)
    accuracy, interval = n_correct / n, wilson_interval(n_correct, n, confidence=search.confidence)
    measured, measure = measured_accuracy(n_correct, n, search=search)
    counts = trial is not None or search.meaning.judges_as_trained
    fits = bool(search.budget)
    reached, deepest = fits or (counts and measured >= search.target), step.depth == search.schedule[-1]
    if fits:
        limits = ", ".join(f"search.max_{metric} {most:,}" for metric, most in search.budget.items())
        reason = f"network is the largest within {limits}, with {accuracy:.2%} on val ({n_correct} of {n})"
    elif reached:
        reason = f"{measure} {measured:.2%} ({n_correct} of {n}) reaches the target {search.target:.2%}"
    elif counts:
        when = f"after {step.epochs} epochs" if step.epochs else "as an exit of the whole network"
        when = "after a cooldown" if trial is not None else when
        reason = f"{measure} {measured:.2%} ({n_correct} of {n}) {when} misses the target {search.target:.2%}"
    else:
        reason = prospect(step, search).why
    tried = (*before, Tried(cost=getattr(step, COUNTED[search.cost]), measured=measured)) if search.climbs else ()
    ends = None if reached or deepest else out_of_reach(tried, target=search.target)
    verdict: Literal["expand", "target_reached", "exhausted"] = "target_reached" if reached else "exhausted"
    if not deepest and ends is None and (search.meaning.exhaustive or not reached):
        verdict = "expand"
    return Verdict(
        depth=step.depth,
        verdict=verdict,
        reason=reason + (f"; {ends or 'no deeper depth is in the schedule'}" if verdict == "exhausted" else ""),
        reached=reached,
        target=search.target,
        accept=search.accept,
        val_accuracy=accuracy,
        val_interval=interval,
        ema_accuracy=step.val_accuracy,
        annealed=trial is not None,
        anneal_epochs=trial.epochs if trial else 0,
        cost=trial.cost if trial else 0.0,
        tried=tried,
    )


def measured_accuracy(n_correct: int, n: int, *, search: SearchConfig) -> tuple[float, str]:
    """Return what is compared with the target, and its name: the accuracy, or a lower bound that holds over all evaluations of a search.

    The bound is Wilson's with the error rate shared out to every network that the search may evaluate.
    Source: the Bonferroni correction (Dunn, 1961, JASA 56 (293)).
    """
    if search.accept == "point":
        return n_correct / n, "val accuracy"
    bound = wilson_interval(n_correct, n, confidence=1 - (1 - search.confidence) / search.n_looks)[0]
    return bound, f"lower {search.confidence:.0%} bound of val accuracy (for {search.n_looks} evaluations)"


def one_standard_error_depth(accuracies: Mapping[int, float], *, n: int) -> int:
    """Return the shallowest depth whose accuracy is within one standard error of the best; `n` images of val gave each.

    Source: the one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).
    """
    best = max(accuracies.values())
    floor = best - standard_error(best, n)
    return min(depth for depth, accuracy in accuracies.items() if accuracy >= floor)
