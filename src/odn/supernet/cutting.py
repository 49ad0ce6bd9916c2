"""Cut channels out of blocks: the first of the inner channels stay, and the residual stream keeps its width.

Source: slimmable networks, arXiv 1812.08928, section 3; elastic width of Once-for-All, arXiv 1908.09791, section 3.3.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, empty


@runtime_checkable
class NarrowableFamily(Protocol):
    """Describe networks with a fraction of the inner channels of each group."""

    def inner_channels(self, architecture: Architecture, widths: Sequence[float]) -> list[tuple[int, ...]]:
        """Return how many inner channels each block keeps."""

    def narrowed(self, architecture: Architecture, widths: Sequence[float]) -> Architecture:
        """Return the description; the same where nothing is cut."""


def n_groups(architecture: Architecture) -> int:
    """Count the groups of a backbone, for each of which a width is chosen."""
    return architecture.made_by.groups(architecture)[-1] + 1


def narrowed_architecture(architecture: Architecture, widths: Sequence[float]) -> Architecture:
    """Describe the network with only a fraction of the inner channels of each group; the same where nothing is cut.

    Raises:
        ConfigError: networks of this family cannot be narrowed.
    """
    if all(width == 1 for width in widths):
        return architecture
    return narrowable(architecture).narrowed(architecture, widths)


def narrowable(architecture: Architecture) -> NarrowableFamily:
    """Return the family of a network, as one that can be narrowed.

    Raises:
        ConfigError: it cannot.
    """
    made_by = architecture.made_by
    if not isinstance(made_by, NarrowableFamily):
        raise ConfigError(f"supernet.widths: networks of the family {architecture.family} cannot be narrowed; set it to [1.0]")
    return made_by


def narrowed(network: DepthNetwork, depth: int, widths: Sequence[float]) -> DepthNetwork:
    """Return a new network that holds a copy of the stem, the first `depth` blocks with their first inner channels, and their head.

    BatchNorm's running statistics are copied too; those behind a cut convolution are no longer right until they are re-estimated.

    Raises:
        ValueError: there is no head at `depth`, or the network is cut already.
        ConfigError: networks of this family cannot be narrowed.
    """
    whole = network.truncated(depth)
    architecture = narrowed_architecture(whole.architecture, widths)
    if architecture == whole.architecture:
        return whole
    kept, mine = empty(architecture, heads=(depth,), device="meta"), whole.state_dict()
    sliced = {name: _first(mine[name], tensor.shape) for name, tensor in kept.state_dict().items()}
    kept.load_state_dict(sliced, assign=True)
    return kept.train(network.training)


def _first(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a copy of the first entries along each axis."""
    return tensor[tuple(slice(size) for size in shape)].clone()
