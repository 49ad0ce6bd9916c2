"""Think of a split as shards: its images in the order in which they are stored, cut into parts of about 64 MiB.

A split of more than a group of shards is shown group by group (see `batches.shuffled`), so that few places of it are read at a time. Where
a split lies, and how it is read, changes neither shards nor order.
"""

import math
from collections.abc import Sequence

SHARD_BYTES = 64 << 20
GROUP = 8  # shards whose images are mixed


def shard_size(shape: Sequence[int]) -> int:
    """Return how many images of a shape (C, H, W) make a shard."""
    return max(1, SHARD_BYTES // math.prod(shape))


def spread(n: int, *, shard: int, wanted: int) -> range:
    """Return about `wanted` of n images, evenly spread: over all, and of a large split over as few groups as have so many."""
    group = GROUP * shard
    among = min(n, group * max(1, -(-wanted // group)))
    return range(0, among, max(1, among // wanted))
