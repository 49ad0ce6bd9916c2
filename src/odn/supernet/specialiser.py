"""Find in a supernet the sub-network that meets a target, without training.

With a bound on accuracy it is the shallowest that meets the target, of these the one with the fewest MACs. Without one, as the
smallest would always do, it is the most accurate on val within the budgets, of equals the shallowest and then the cheapest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from odn.searching.targets import Target, describe_excess
from odn.supernet.evolution import evolve, fit_predictor, random_subnetwork
from odn.supernet.subnetworks import Measured, Subnetwork
from odn.training.seed import generator

MOST_ENUMERATED = 64  # sub-networks of a space that is looked through in whole
SAMPLES = 48  # sub-networks that the predictor is fitted on
FINALISTS = 16  # of evolution, that are evaluated on val
SLACK = 1.1  # of a bound on latency that is foreseen: a sum of parts is off by some percent, and the winner is timed as a whole
ROUNDS = 3  # of evolution, each with a predictor that has seen more


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold what came of a target: the sub-network, or None and by how much the best one misses."""

    target: Target
    subnetwork: Subnetwork | None
    miss: str = ""
    how: str = ""


class Specialiser:
    """Answer one target after another; what was measured for one is known for the next."""

    def __init__(self, measured: Measured, *, seed: int, enumerates: bool, predicts: bool) -> None:
        self.measured, self.space, self.seed = measured, measured.space, seed
        self.enumerates = enumerates or self.space.count() <= MOST_ENUMERATED
        self.predicts = predicts

    def find(self, target: Target) -> Found:
        """Return the sub-network that meets a target, evaluated on val, and timed where the target bounds the time."""
        candidates = self._candidates(target)
        for one in sorted(candidates, key=lambda one: self._rank(target, one, self._accuracy)):
            is_enough = target.accuracy is None or self._accuracy(one) >= target.accuracy
            if is_enough and self._is_quick(target, one):
                return Found(target=target, subnetwork=one, how=self._how())
        return Found(target=target, subnetwork=None, miss=self._miss(target, candidates), how=self._how())

    def _candidates(self, target: Target) -> list[Subnetwork]:
        """List the sub-networks within the budgets: all of a small space, else the finalists of evolution.

        With a predictor there are several rounds: it is fitted again on what was evaluated on val of the finalists before.
        """
        if self.enumerates:
            return [one for one in self.space.all() if self._fits(target, one)]
        if not self.predicts:
            return self._evolved(target, self._accuracy, 0)
        read, finalists = self._samples(), set[Subnetwork]()
        for number in range(ROUNDS):
            predict = fit_predictor(self.space, {one: self.measured.evaluate(one) for one in read | finalists})
            finalists.update(self._evolved(target, predict, number))
        return sorted(finalists)

    def _evolved(self, target: Target, accuracy: Callable[[Subnetwork], float], number: int) -> list[Subnetwork]:
        draws = generator(self.seed, "specialise", target.text, number)
        ranked = evolve(
            self.space, fits=lambda one: self._fits(target, one), rank=lambda one: self._rank(target, one, accuracy), draws=draws
        )
        return ranked[:FINALISTS]

    def _samples(self) -> set[Subnetwork]:
        draws = generator(self.seed, "specialise", "samples")
        return {self.space.smallest, *(random_subnetwork(self.space, draws) for _ in range(SAMPLES))}

    def _fits(self, target: Target, one: Subnetwork) -> bool:
        within = not target.excess(self.measured.cost(one), whole=self.measured.whole)
        if not within or target.latency_ms is None:
            return within
        return self._is_quick(target, one) if self.enumerates else self.measured.foreseen_ms(one) <= SLACK * target.latency_ms

    def _is_quick(self, target: Target, one: Subnetwork) -> bool:
        return target.latency_ms is None or self.measured.latency_ms(one) <= target.latency_ms

    def _rank(self, target: Target, one: Subnetwork, accuracy: Callable[[Subnetwork], float]) -> tuple[Any, ...]:
        """Order sub-networks, the best first."""
        reached, size = accuracy(one), (one.depth, self.measured.cost(one).macs, one.widths)
        if target.accuracy is None:
            return (0, -reached, *size)
        return (0, 0.0, *size) if reached >= target.accuracy else (1, -reached, *size)

    def _accuracy(self, one: Subnetwork) -> float:
        return self.measured.evaluate(one).accuracy

    def _how(self) -> str:
        n = self.space.count()
        return f"all {n} sub-networks looked through" if self.enumerates else f"evolution over {n} sub-networks"

    def _miss(self, target: Target, candidates: Iterable[Subnetwork]) -> str:
        """Say by how much the best sub-network misses the target."""
        within = list(candidates)
        if not within:
            return self._over_budget(target)
        quick = [one for one in within if self._is_quick(target, one)]
        if not quick:
            one = min(within, key=self.measured.latency_ms)
            return f"the quickest within the budgets, {_name(one)}, takes {self.measured.latency_ms(one):.3f} ms"
        one = max(quick, key=lambda one: (self._accuracy(one), -one.depth))
        assert target.accuracy is not None, "without a bound on accuracy whatever fits is enough"
        reached = self._accuracy(one)
        return f"the best within the budgets, {_name(one)}, reaches {reached:.2%} on val, {target.accuracy - reached:.2%} short"

    def _over_budget(self, target: Target) -> str:
        one = self.space.smallest
        over = target.excess(self.measured.cost(one), whole=self.measured.whole)
        if over:
            return f"the smallest, {_name(one)}, exceeds {describe_excess(over)}"
        return f"the smallest, {_name(one)}, takes {self.measured.latency_ms(one):.3f} ms"


def _name(one: Subnetwork) -> str:
    widths = "" if set(one.widths) == {1.0} else f" at widths {', '.join(f'{width:g}' for width in one.widths)}"
    return f"depth {one.depth}{widths}"
