"""Cut channels out of blocks: the first of the inner channels stay, and the residual stream keeps its width.

Source: slimmable networks, arXiv 1812.08928, section 3; elastic width of Once-for-All, arXiv 1908.09791, section 3.3.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.network import DepthNetwork, empty
from odn.models.resnet import ResidualBlock
from odn.models.zoo import BACKBONES


def group_of_blocks(backbone: str) -> tuple[int, ...]:
    """Return the group of each block, both counted from 0."""
    return tuple(group for group, size in enumerate(BACKBONES[backbone].group_sizes) for _ in range(size))


def n_groups(backbone: str) -> int:
    """Count the groups of a backbone."""
    return len(BACKBONES[backbone].group_sizes)


def inner_channels(architecture: Architecture, widths: Sequence[float]) -> list[tuple[int, ...]]:
    """Return how many inner channels each block keeps, at least one, of an uncut backbone; `widths` is a fraction a group.

    Raises:
        ValueError: the architecture is cut already, or there are not as many widths as groups.
    """
    groups, shapes = group_of_blocks(architecture.backbone), BACKBONES[architecture.backbone].shapes(architecture)
    if architecture.cut is not None or len(widths) != n_groups(architecture.backbone):
        raise ValueError(f"expected an uncut backbone, and a width for each of its {n_groups(architecture.backbone)} groups; got {widths}")
    return [
        tuple(max(1, round(widths[group] * channels)) for channels in shape.inner)
        for group, shape in zip(groups[: len(shapes)], shapes, strict=True)
    ]


def narrowed_architecture(architecture: Architecture, widths: Sequence[float]) -> Architecture:
    """Describe the network with only a fraction of the inner channels of each group; the same where nothing is cut."""
    shapes, inner = BACKBONES[architecture.backbone].shapes(architecture), inner_channels(architecture, widths)
    if all(kept == shape.inner for kept, shape in zip(inner, shapes, strict=True)):
        return architecture
    blocks = [
        CutBlock(number=number, inner=kept, out=shape.out_channels)
        for number, (kept, shape) in enumerate(zip(inner, shapes, strict=True), start=1)
    ]
    cut = Cut(stem=shapes[0].in_channels, blocks=tuple(blocks))
    return Architecture(**(vars(architecture) | {"cut": cut}))


def narrowed(network: DepthNetwork, depth: int, widths: Sequence[float]) -> DepthNetwork:
    """Return a new network that holds a copy of the stem, the first `depth` blocks with their first inner channels, and their head.

    BatchNorm's running statistics are copied too; those behind a cut convolution are no longer right until they are re-estimated.

    Raises:
        ValueError: there is no head at `depth`, or the network is cut already.
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


def layers_of(block: ResidualBlock) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the convolutions of a block's residual, each with its BatchNorm."""
    numbers = range(1, block.n_inner + 2)
    return [(getattr(block, f"conv{number}"), getattr(block, f"bn{number}")) for number in numbers]
