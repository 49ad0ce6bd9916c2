"""Pick the network that meets a target among those that a climb has trained, without training: the smallest that is accurate enough.

Without a bound on accuracy, as the smallest would always do, it is the most accurate on val within the budgets, of equals the cheapest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from odn.models.cost import Cost
from odn.models.ladder import Metric
from odn.models.network import DepthNetwork
from odn.models.timing import Clock, Timing
from odn.searching.convergence import COUNTED
from odn.searching.data import SearchData, costs_at, full_network_cost
from odn.searching.targets import Target, describe_excess
from odn.training.evaluation import Evaluation, evaluate


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Hold a network of a ladder, what it costs, and how many images of val it gets right."""

    name: str
    network: DepthNetwork
    cost: Cost
    seen: Evaluation


class Rungs:
    """Answer one target after another out of the same trained networks, each of which is timed once at most."""

    def __init__(self, networks: Mapping[str, DepthNetwork], *, data: SearchData, metric: Metric, clock: Clock) -> None:
        """Take networks by name, the metric by which one is smaller than another, and what times one."""
        self._metric, self._clock = COUNTED[metric], clock
        self._timed: dict[str, Timing] = {}
        self.trained = [
            Trained(
                name=name,
                network=network,
                cost=costs_at(network.architecture, data.manifest),
                seen=evaluate(network, data.val, machine=data.machine),
            )
            for name, network in networks.items()
        ]
        self.whole = full_network_cost(self.trained[0].network.architecture, data.manifest)

    def find(self, target: Target) -> Trained | str:
        """Return the network that meets a target, timed where the target bounds the time; or by how much the best one misses."""
        within = sorted((one for one in self.trained if not target.excess(one.cost, whole=self.whole)), key=self._size)
        quick = [one for one in within if target.latency_ms is None or self.latency_ms(one) <= target.latency_ms]
        if not quick:
            return self._over_budget(target, within)
        best = max(quick, key=lambda one: one.seen.n_correct)  # of equals the cheapest
        if target.accuracy is None:
            return best
        short = f"{target.accuracy - best.seen.accuracy:.2%} short"
        missed = f"the best within the budgets, {best.name}, reaches {best.seen.accuracy:.2%} on val, {short}"
        return next((one for one in quick if one.seen.accuracy >= target.accuracy), missed)

    def timing(self, one: Trained) -> Timing:
        """Time a network for one image, and say whether the machine was quiet."""
        if one.name not in self._timed:
            self._timed[one.name] = self._clock(one.network)
        return self._timed[one.name]

    def latency_ms(self, one: Trained) -> float:
        """Time a network for one image, the least of many passes."""
        return self.timing(one).ms[""]

    def _size(self, one: Trained) -> int:
        size: int = getattr(one.cost, self._metric)
        return size

    def _over_budget(self, target: Target, within: list[Trained]) -> str:
        if within:
            one = min(within, key=self.latency_ms)
            return f"the quickest within the budgets, {one.name}, takes {self.latency_ms(one):.3f} ms"
        one = min(self.trained, key=self._size)
        return f"the smallest, {one.name}, exceeds {describe_excess(target.excess(one.cost, whole=self.whole))}"
