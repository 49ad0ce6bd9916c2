"""The ladder of a search: networks cut from one backbone, each about twice as expensive as the one before it. No torch."""

import bisect
import functools
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from odn.config import Config
from odn.errors import ConfigError
from odn.models.architecture import Architecture

Metric = Literal["bytes", "macs", "params"]
STEPS = 200  # of the size of a network, from the smallest to the whole, that are tried


@runtime_checkable
class Spreadable(Protocol):
    """Be a family whose networks can keep every stride with few blocks and thin channels."""

    def counts(self, architecture: Architecture, height: int, width: int) -> dict[str, int]:
        """Count the metrics of a network for one image."""

    def n_rungs(self, whole: Architecture) -> int:
        """Count the rungs of the ladder up to a whole backbone."""

    def halvings(self, whole: Architecture) -> int:
        """Count how often a whole backbone is halved down to the first rung."""

    def spread(self, whole: Architecture, *, size: float, few_macs: bool, blocks: float | None = None) -> Architecture:
        """Describe a network that keeps the strides of a whole backbone: `size` 1 is about the backbone, and less is less of everything.

        With `few_macs` it saves MACs where it can; without, it may spend them where they cost few bytes. `blocks` is the size whose number
        of blocks it has, where that is not its own.
        """


def ladder_of(whole: Architecture, *, config: Config, height: int, width: int) -> tuple[Architecture, ...]:
    """Return the networks that a search tries, cheapest first; of the published ladder rung d is the first d blocks of the backbone.

    Raises:
        ConfigError: `search.ladder: spread`, and networks of this family cannot be narrowed.
    """
    if config.search.budget:
        return (fitting(whole, config.search.budget, height=height, width=width),)
    if config.spreads:
        return spread(whole, metric=config.search.cost, height=height, width=width)
    return tuple(whole.at(depth) for depth in range(1, whole.n_blocks + 1))


@functools.lru_cache(maxsize=64)
def spread(whole: Architecture, *, metric: Metric, height: int, width: int) -> tuple[Architecture, ...]:
    """Return thin networks that keep every stride, each about half the cost of the next, and above them the backbone itself.

    Raises:
        ConfigError: networks of this family cannot be narrowed.
    """
    family = _spreadable(whole)
    full = family.counts(whole, height, width)[metric]
    below = family.n_rungs(whole) - 1
    limits = [int(full / 2 ** (family.halvings(whole) * step / below)) for step in range(below, 0, -1)]
    return (*(largest(whole, {metric: most}, height=height, width=width) for most in limits), whole)


def fitting(whole: Architecture, budget: Mapping[Metric, int], *, height: int, width: int) -> Architecture:
    """Return the largest network of a backbone's family within a budget.

    Raises:
        ConfigError: networks of this family cannot be narrowed, or there is none so small.
    """
    family = _spreadable(whole)
    found = largest(whole, budget, height=height, width=width)
    counts = family.counts(found, height, width)
    for metric, most in budget.items():
        if counts[metric] > most:
            raise ConfigError(f"search.max_{metric}: {most:,} is less than the smallest network has, {counts[metric]:,}; raise it")
    return found


def largest(whole: Architecture, most: Mapping[Metric, int], *, height: int, width: int) -> Architecture:
    """Return the largest network of a family that costs no more than `most` by each metric, or the smallest that there is."""
    family = _spreadable(whole)

    def fits(found: Architecture) -> bool:
        counts = family.counts(found, height, width)
        return all(counts[metric] <= limit for metric, limit in most.items())

    def at(step: int, *, blocks: int | None = None) -> Architecture:
        return family.spread(whole, size=step / STEPS, few_macs="macs" in most, blocks=None if blocks is None else blocks / STEPS)

    if fits(whole):
        return whole
    steps = range(1 - 2 * STEPS, STEPS + 1)  # no metric falls from one to the next
    too_large = bisect.bisect_left(steps, True, key=lambda step: not fits(at(step)))
    step = steps[max(0, too_large - 1)]
    # Blocks come whole: where the next one is too much, channels take what is left.
    wider = range(step + 1, STEPS + 1)
    return at(step + bisect.bisect_left(wider, True, key=lambda other: not fits(at(other, blocks=step))), blocks=step)


def _spreadable(whole: Architecture) -> Spreadable:
    family = whole.made_by
    if not isinstance(family, Spreadable):
        raise ConfigError(f"search.ladder: networks of the family {whole.family} cannot be narrowed; set it to prefix")
    return family
