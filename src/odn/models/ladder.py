"""The ladder of a search: networks cut from one backbone, each about twice as expensive as the one before it. No torch."""

import functools
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from odn.config import Config
from odn.errors import ConfigError
from odn.models.architecture import Architecture

Metric = Literal["bytes", "macs", "params"]
STEP = 1.01  # between two widths that are tried


@runtime_checkable
class Spreadable(Protocol):
    """Be a family whose networks can keep every stride with few blocks and thin channels."""

    def counts(self, architecture: Architecture, height: int, width: int) -> dict[str, int]:
        """Count the metrics of a network for one image."""

    def group_sizes(self, architecture: Architecture) -> tuple[int, ...]:
        """Return how many blocks of the whole backbone work at each size of the map."""

    def n_rungs(self, whole: Architecture) -> int:
        """Count the rungs of the ladder up to a whole backbone."""

    def spread(self, whole: Architecture, *, blocks: Sequence[int], width: float) -> Architecture:
        """Describe the network of the first blocks of each group, all channels `width` times those of the backbone."""


def ladder_of(whole: Architecture, *, config: Config, height: int, width: int) -> tuple[Architecture, ...]:
    """Return the networks that a search tries, cheapest first; of the published ladder rung d is the first d blocks of the backbone.

    Raises:
        ConfigError: `search.ladder: spread`, and networks of this family cannot be narrowed.
    """
    if config.spreads:
        return spread(whole, metric=config.search.cost, height=height, width=width)
    return tuple(whole.at(depth) for depth in range(1, whole.n_blocks + 1))


@functools.lru_cache(maxsize=64)
def spread(whole: Architecture, *, metric: Metric, height: int, width: int) -> tuple[Architecture, ...]:
    """Return thin networks that keep every stride, each half the cost of the next, and above them the backbone itself.

    Raises:
        ConfigError: networks of this family cannot be narrowed.
    """
    family = whole.made_by
    if not isinstance(family, Spreadable):
        raise ConfigError(f"search.ladder: networks of the family {whole.family} cannot be narrowed; set it to prefix")
    full, blocks = family.counts(whole, height, width)[metric], [min(1, group) for group in range(len(family.group_sizes(whole)))]
    rungs = []
    for halvings in range(family.n_rungs(whole) - 1, 0, -1):
        most, chosen, channels = full / 2**halvings, None, 1.0
        while chosen is None:
            candidate = family.spread(whole, blocks=blocks, width=channels)
            if family.counts(candidate, height, width)[metric] <= most:
                chosen = candidate
            channels /= STEP
        rungs.append(chosen)
    return (*rungs, whole)
