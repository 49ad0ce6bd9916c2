"""What families of networks that are kept to a prefix have in common: the parts of a network, and how it is kept to a depth. No torch."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from odn.models.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

A = TypeVar("A", bound=Architecture)


@dataclasses.dataclass(frozen=True)
class Parts:
    """Hold the modules of a network: what comes before the first block, and the blocks that are kept.

    `widths` counts the features that a head reads behind each block; None: a forward pass finds them. `tails` are what a head computes
    before its linear layer, (N, ...) -> (N, C), behind each block; None, for all or for one: it averages over positions.
    """

    stem: "nn.Module"
    blocks: "Sequence[nn.Module]"
    widths: Sequence[int] | None = None
    tails: "Sequence[nn.Module | None] | None" = None


class Prefixes:
    """Be the base of families whose networks are kept to a depth and not cut otherwise."""

    draws_itself = True
    knows_meta = False

    def at(self, architecture: A, depth: int) -> A:
        """Return the description of the first `depth` blocks."""
        return dataclasses.replace(architecture, depth=depth)

    def whole(self, architecture: A) -> A:
        """Return the description of all blocks."""
        return dataclasses.replace(architecture, depth=architecture.n_blocks)

    def groups(self, architecture: Architecture) -> tuple[int, ...]:
        """Put all blocks into one group."""
        return (0,) * architecture.n_blocks


def is_plain(value: object) -> bool:
    """Tell whether a value is the same when it is written as JSON and read again."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
