"""What a network costs in parameters, bytes and multiply-accumulates: counted, exact."""

import dataclasses
import functools

from torch import nn

from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, empty
from odn.models.resnet import ResidualBlock, ShortcutBlock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Count a network with one head.

    n_params: trainable numbers. size_bytes: of every tensor in the state dict, BatchNorm's buffers included; a file adds a few hundred
    bytes a tensor. macs: multiply-accumulates of convolutions and linear layers, forward, for one image.
    """

    n_params: int
    size_bytes: int
    macs: int


@functools.lru_cache(maxsize=256)
def cost(architecture: Architecture, height: int, width: int) -> Cost:
    """Count the network with only the head at its depth, for images of `height` x `width`; nothing is allocated or computed."""
    return cost_of(empty(architecture, heads=(architecture.depth,), device="meta"), height, width)


def cost_of(network: DepthNetwork, height: int, width: int) -> Cost:
    """Count a network as it is, with all its heads, whatever its channels."""
    return Cost(
        n_params=sum(parameter.numel() for parameter in network.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()),
        macs=part_macs(network, height, width).total,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartMacs:
    """Count multiply-accumulates part by part, forward, for one image: `residuals` and `shortcuts` by block, `heads` by depth."""

    stem: int
    residuals: tuple[int, ...]
    shortcuts: tuple[int, ...]
    heads: dict[int, int]

    @property
    def total(self) -> int:
        """Count all parts."""
        return self.stem + sum(self.residuals) + sum(self.shortcuts) + sum(self.heads.values())


def part_macs(network: DepthNetwork, height: int, width: int) -> PartMacs:
    """Follow the size of the map through the network: each weight of a convolution is used once an output pixel."""
    size, inner, around = (height, width), [], []
    for part in (network.stem, *network.blocks):
        shortcut = part.shortcut if isinstance(part, ResidualBlock) else nn.Identity()
        beside, macs = set(shortcut.modules()), 0
        for layer in part.modules():
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) and layer not in beside:
                size = _size_after(layer, size)
                macs += layer.weight.numel() * size[0] * size[1] if isinstance(layer, nn.Conv2d) else 0
        if isinstance(part, ShortcutBlock):
            size = (-(-size[0] // part.stride), -(-size[1] // part.stride))
        inner.append(macs)  # the shortcut ends at the size at which the block ends
        around.append(sum(layer.weight.numel() * size[0] * size[1] for layer in beside if isinstance(layer, nn.Conv2d)))
    heads = {int(depth): head.weight.numel() for depth, head in network.heads.items() if isinstance(head, nn.Linear)}
    return PartMacs(stem=inner[0], residuals=tuple(inner[1:]), shortcuts=tuple(around[1:]), heads=heads)


def _size_after(layer: nn.Conv2d | nn.MaxPool2d, size: tuple[int, int]) -> tuple[int, int]:
    kernel, stride, padding = (
        value if isinstance(value, int) else int(value[0]) for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    height, width = ((pixels + 2 * padding - kernel) // stride + 1 for pixels in size)
    return height, width
