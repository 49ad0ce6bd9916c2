"""Residual networks for small and large images: stem, blocks and the shortcut between groups.

Source: He et al., Deep Residual Learning, arXiv 1512.03385 (section 3.3 and table 1).
Axes: N images, C channels, H rows, W columns.
"""

import dataclasses
from collections import OrderedDict
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from odn.models.architecture import Architecture

BASE_CHANNELS = (64, 128, 256, 512)  # of the four groups, before the width multiplier; the last three halve the map


def _conv(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def make_shortcut(in_channels: int, out_channels: int, *, stride: int, kind: str, projects: bool) -> nn.Module:
    """Make the path around a block: nothing inside a group, else, where it `projects`, 1x1 convolution and BatchNorm.

    `conv` strides the 1x1 convolution, as published; `avgpool` averages 2x2 pixels before it, with the same parameters
    and MACs, so that it can start as an identity. An odd map is rounded up, like the strided convolution's.
    Source: `avgpool` is ResNet-D, arXiv 1812.01187, section 4.2.
    """
    if not projects:
        return nn.Identity()
    pools = kind == "avgpool" and stride > 1
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if pools:
        parts["pool"] = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
    parts["conv"] = _conv(in_channels, out_channels, kernel=1, stride=1 if pools else stride)
    parts["bn"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Say what a block is made for: its channels, the stride of its map, and the kind of its shortcut."""

    in_channels: int
    inner: tuple[int, ...]  # channels of the inner convolutions; none where the residual was cut
    out_channels: int
    stride: int
    shortcut: str
    projects: bool  # the shortcut changes the width or the map


class ResidualBlock(nn.Module):
    """Add what the block computes to its shortcut, then rectify: (N, C, H, W) -> (N, C', H / stride, W / stride)."""

    expand_ratio: ClassVar[int]  # output channels over inner channels, before any cut
    n_inner: ClassVar[int]  # convolutions between the first and the last

    def __init__(self, shape: "BlockShape") -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = shape.in_channels, shape.out_channels, shape.stride
        self.shortcut = make_shortcut(
            shape.in_channels, shape.out_channels, stride=shape.stride, kind=shape.shortcut, projects=shape.projects
        )

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Return the BatchNorm before the addition: the block is silent where its gamma and beta are 0."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class ShortcutBlock(ResidualBlock):
    """Nothing but the shortcut: what is left of a block whose residual was cut."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return F.relu(self.shortcut(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    expand_ratio = 1
    n_inner = 1

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        (inner,) = shape.inner
        self.conv1 = _conv(shape.in_channels, inner, kernel=3, stride=shape.stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, shape.out_channels, kernel=3)
        self.bn2 = nn.BatchNorm2d(shape.out_channels)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Return the BatchNorm before the addition."""
        return self.bn2

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        added: Tensor = self.bn2(self.conv2(x))
        return added


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions; the stride is in the 3x3, as in the published notebooks."""

    expand_ratio = 4
    n_inner = 2

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        first, second = shape.inner
        self.conv1 = _conv(shape.in_channels, first, kernel=1)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = _conv(first, second, kernel=3, stride=shape.stride)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = _conv(second, shape.out_channels, kernel=1)
        self.bn3 = nn.BatchNorm2d(shape.out_channels)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Return the BatchNorm before the addition."""
        return self.bn3

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        added: Tensor = self.bn3(self.conv3(x))
        return added


def make_stem(architecture: Architecture) -> nn.Sequential:
    """Make what comes before the first block: (N, C, H, W) -> (N, 64 width, H, W), or a quarter of H and W for `imagenet`."""
    channels = _stem_channels(architecture)
    published = architecture.stem == "cifar"
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = _conv(architecture.in_channels, channels, kernel=3 if published else 7, stride=1 if published else 2)
    parts["bn"] = nn.BatchNorm2d(channels)
    parts["relu"] = nn.ReLU(inplace=True)
    if not published:
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet:
    """Be one row of the table of variants: the block, how many of it in each group, and whose it is."""

    block: type[ResidualBlock]
    group_sizes: tuple[int, int, int, int]
    source: str

    @property
    def n_blocks(self) -> int:
        """Count the blocks of all groups."""
        return sum(self.group_sizes)

    def stem(self, architecture: Architecture) -> nn.Module:
        """Make the stem."""
        return make_stem(architecture)

    def blocks(self, architecture: Architecture) -> list[ResidualBlock]:
        """Make the first `architecture.depth` blocks, or those that the cut lists, and no more.

        Raises:
            ValueError: a cut block has another number of inner convolutions than this backbone's, or a shortcut that does not fit.
        """
        return [(self.block if shape.inner else ShortcutBlock)(shape) for shape in self.shapes(architecture)]

    def shapes(self, architecture: Architecture) -> list[BlockShape]:
        """List the shapes of the blocks that `blocks` makes."""
        whole = self._whole(architecture)
        if architecture.cut is None:
            return whole[: architecture.depth]
        shapes, in_channels = [], architecture.cut.stem
        for block in architecture.cut.blocks:
            shape = dataclasses.replace(whole[block.number - 1], in_channels=in_channels, inner=block.inner, out_channels=block.out)
            if block.inner and len(block.inner) != self.block.n_inner:
                raise ValueError(f"cut: block {block.number} has {self.block.n_inner} inner convolutions; got channels {block.inner}")
            if not shape.projects and in_channels != block.out:
                raise ValueError(f"cut: block {block.number} passes on {in_channels} channels; got {block.out}")
            shapes.append(shape)
            in_channels = block.out
        return shapes

    def _whole(self, architecture: Architecture) -> list[BlockShape]:
        shapes: list[BlockShape] = []
        in_channels = _scaled(BASE_CHANNELS[0], architecture.width)
        for group, (base, size) in enumerate(zip(BASE_CHANNELS, self.group_sizes, strict=True)):
            inner = _scaled(base, architecture.width)
            for position in range(size):
                stride, out_channels = 2 if group > 0 and position == 0 else 1, inner * self.block.expand_ratio
                shapes.append(
                    BlockShape(
                        in_channels=in_channels,
                        inner=(inner,) * self.block.n_inner,
                        out_channels=out_channels,
                        stride=stride,
                        shortcut=architecture.shortcut,
                        projects=stride > 1 or in_channels != out_channels,
                    )
                )
                in_channels = out_channels
        return shapes


def _stem_channels(architecture: Architecture) -> int:
    return architecture.cut.stem if architecture.cut is not None else _scaled(BASE_CHANNELS[0], architecture.width)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


VARIANTS = {
    "resnet18": ResNet(block=BasicBlock, group_sizes=(2, 2, 2, 2), source="arXiv 1512.03385, table 1, 18-layer"),
    "resnet34": ResNet(block=BasicBlock, group_sizes=(3, 4, 6, 3), source="arXiv 1512.03385, table 1, 34-layer"),
    "resnet50": ResNet(block=Bottleneck, group_sizes=(3, 4, 6, 3), source="arXiv 1512.03385, table 1, 50-layer"),
}
