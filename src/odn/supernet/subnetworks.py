"""The sub-networks of a supernet: what each costs, how fast it is, and how many images of val it gets right."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from odn.models.cost import Cost
from odn.models.network import DepthNetwork
from odn.models.timing import Clock, Timing, part_latencies
from odn.searching.data import SearchData, costs_at, full_network_cost
from odn.sections import AugmentConfig
from odn.supernet.cutting import narrowed, narrowed_architecture
from odn.training.evaluation import Evaluation, evaluate, reestimate_batchnorm


@dataclass(frozen=True, order=True)
class Subnetwork:
    """Name a sub-network: its depth, and a fraction of the inner channels for each group; 1 for a group that it does not reach."""

    depth: int
    widths: tuple[float, ...]


@dataclass(frozen=True)
class Space:
    """List the depths and widths of a supernet."""

    groups: tuple[int, ...]  # of each block of the backbone, from 0
    depths: tuple[int, ...]  # ascending
    widths: tuple[float, ...]

    def named(self, depth: int, widths: Sequence[float]) -> Subnetwork:
        """Name a sub-network by its depth and widths, one name only for each."""
        n_reached = self.groups[depth - 1] + 1
        return Subnetwork(depth, (*widths[:n_reached], *(1.0,) * (self.n_groups - n_reached)))

    @property
    def n_groups(self) -> int:
        """Count the groups of blocks, for each of which a width is chosen."""
        return self.groups[-1] + 1

    def count(self) -> int:
        """Count the sub-networks."""
        return sum(len(self.widths) ** (self.groups[depth - 1] + 1) for depth in self.depths)

    def all(self) -> list[Subnetwork]:
        """List every sub-network."""
        names = {self.named(depth, w) for depth in self.depths for w in product(self.widths, repeat=self.n_groups)}
        return sorted(names)

    @property
    def smallest(self) -> Subnetwork:
        """Return the sub-network than which none costs less."""
        return self.named(self.depths[0], (min(self.widths),) * self.n_groups)


class Measured:
    """Look sub-networks up: each is counted, timed and evaluated on val once."""

    def __init__(
        self, supernet: DepthNetwork, *, space: Space, data: SearchData, augment: AugmentConfig, clock: Clock, uses_table: bool
    ) -> None:
        """Take what times a network; a table of the times of parts is one of torch's."""
        self.supernet, self.space, self.data, self._augment = supernet, space, data, augment
        self.whole = full_network_cost(supernet.architecture, data.manifest)
        self._counted: dict[Subnetwork, Cost] = {}
        self._seen: dict[Subnetwork, Evaluation] = {}
        self._timed: dict[Subnetwork, Timing] = {}
        self._clock, self._uses_table = clock, uses_table

    @property
    def n_read(self) -> int:
        """Count the sub-networks that were evaluated on val."""
        return len(self._seen)

    def cost(self, one: Subnetwork) -> Cost:
        """Count a sub-network."""
        if one not in self._counted:
            architecture = narrowed_architecture(self.supernet.architecture.at(one.depth), one.widths)
            self._counted[one] = costs_at(architecture, self.data.manifest)
        return self._counted[one]

    def network(self, one: Subnetwork) -> DepthNetwork:
        """Cut a sub-network out, ready for use on the device; a cut one gets BatchNorm statistics of its own.

        At full width it is the supernet's exit, bit for bit.
        """
        kept = self.data.machine.to_device(narrowed(self.supernet, one.depth, one.widths))
        if kept.architecture.is_cut:
            reestimate_batchnorm(kept, self.data.train, augment=self._augment, machine=self.data.machine)
        return kept.eval()

    def evaluate(self, one: Subnetwork) -> Evaluation:
        """Count what a sub-network gets right on val."""
        if one not in self._seen:
            self._seen[one] = evaluate(self.network(one), self.data.val, machine=self.data.machine)
        return self._seen[one]

    def latency_ms(self, one: Subnetwork) -> float:
        """Time a sub-network for one image, the least of many passes."""
        return self.timing(one).ms[""]

    def timing(self, one: Subnetwork) -> Timing:
        """Time a sub-network for one image, and say whether the machine was quiet."""
        if one not in self._timed:
            self._timed[one] = self._clock(narrowed(self.supernet, one.depth, one.widths))
        return self._timed[one]

    def foreseen_ms(self, one: Subnetwork) -> float:
        """Add up the times of a sub-network's parts, where there is a table; else time it."""
        if not self._uses_table:
            return self.latency_ms(one)
        groups, table = self.space.groups, self._table
        blocks = [table[one.widths[groups[number]]][1 + number] for number in range(one.depth)]
        return table[1.0][0] + sum(blocks) + table[1.0][-1]

    @functools.cached_property
    def _table(self) -> dict[float, list[float]]:
        """Time stem, blocks and head once at each width."""
        manifest, device = self.data.manifest, self.data.machine.device.type
        networks = {w: narrowed(self.supernet, self.space.depths[-1], (w,) * self.space.n_groups) for w in self.space.widths}
        return {w: part_latencies(network, height=manifest.height, width=manifest.width, device=device) for w, network in networks.items()}
