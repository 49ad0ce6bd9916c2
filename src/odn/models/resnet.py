"""Residual networks for small and large images: stem, blocks and the shortcut between groups.

Source: He et al., Deep Residual Learning, arXiv 1512.03385 (section 3.3 and table 1).
Axes: N images, C channels, H rows, W columns.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.models.abilities import Layers
from odn.models.architecture import Architecture
from odn.models.prefixes import Parts
from odn.models.resnet_shapes import VARIANTS, BlockShape, arguments_of, block_shapes, stem_channels


def make_parts(architecture: Architecture) -> Parts:
    """Make the stem and the blocks that are kept.

    Raises:
        ValueError: the cut is not one of this backbone.
    """
    shapes, kind = block_shapes(architecture), BLOCKS[VARIANTS[architecture.name].block]
    blocks = [(kind if shape.inner else ShortcutBlock)(shape) for shape in shapes]
    stem = Stem(architecture.in_channels, stem_channels(architecture), kind=arguments_of(architecture).stem)
    return Parts(stem, blocks, [shape.out_channels for shape in shapes])


class Stem(nn.Sequential):
    """Read the image: (N, C, H, W) -> (N, 64 width, H, W), or a quarter of H and W for `imagenet`."""

    def __init__(self, in_channels: int, channels: int, *, kind: str) -> None:
        published = kind == "cifar"
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = _conv(in_channels, channels, kernel=3 if published else 7, stride=1 if published else 2)
        parts["bn"] = nn.BatchNorm2d(channels)
        parts["relu"] = nn.ReLU(inplace=True)
        if not published:
            parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
        super().__init__(parts)

    def layer(self) -> tuple[str, str]:
        """Name the convolution and its BatchNorm."""
        return "conv", "bn"


class ResidualBlock(nn.Module):
    """Add what the block computes to its shortcut, then rectify: (N, C, H, W) -> (N, C', H / stride, W / stride).

    The residual is a chain conv1, bn1, relu, conv2, bn2, …; the last BatchNorm has no rectifier behind it.
    """

    n_layers: int  # convolutions of the residual

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = shape.in_channels, shape.out_channels, shape.stride
        self.shortcut = make_shortcut(shape)

    @property
    def passes_on(self) -> bool:
        """Return whether the shortcut gives its input as it is."""
        return isinstance(self.shortcut, nn.Identity)

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        raise NotImplementedError

    def joined(self, shortcut: Tensor) -> Tensor:
        """Rectify the sum, in place."""
        return F.relu(shortcut, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)

    def residual_layers(self) -> Layers:
        """Name the layers of the residual in the order of computing."""
        return [(f"conv{number}", f"bn{number}") for number in range(1, self.n_layers + 1)]

    def shortcut_layers(self) -> Layers:
        """Name the layers of the shortcut."""
        return [] if self.passes_on else [("shortcut.conv", "shortcut.bn")]

    def without_residual(self) -> "ShortcutBlock":
        """Return the shortcut alone."""
        shape = BlockShape(in_channels=1, inner=(), out_channels=1, stride=self.stride, shortcut="conv", projects=True)
        left = ShortcutBlock(shape)
        left.shortcut = self.shortcut
        return left

    def forward_narrowed(self, x: Tensor, inner: Sequence[int]) -> Tensor:
        """Compute the block in training with the first of its inner channels only."""
        y, n_in = x, self.in_channels
        for number, n_out in enumerate((*inner, self.out_channels), start=1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            y = F.conv2d(y, conv.weight[:n_out, :n_in], stride=conv.stride, padding=conv.padding)
            y = F.batch_norm(y, None, None, norm.weight[:n_out], norm.bias[:n_out], training=True, eps=norm.eps)
            y = F.relu(y) if number < self.n_layers else y
            n_in = n_out
        return F.relu(y + self.shortcut(x))

    def start_silent(self, features: Tensor | None) -> Tensor | None:
        """Turn the residual off and make the shortcut pass its input on.

        Within a group that is exact: the shortcut passes x on, and x >= 0 because it left a relu. For a change of group see `_pass_on`.
        """
        getattr(self, f"bn{self.n_layers}").weight.zero_()
        if not self.passes_on:
            _pass_on(self.shortcut, features)
        return None if features is None else copy.deepcopy(self).train()(features)


class ShortcutBlock(ResidualBlock):
    """Nothing but the shortcut: what is left of a block whose residual was cut."""

    n_layers = 0

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        return F.relu(self.shortcut(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    n_layers = 2

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        (inner,) = shape.inner
        self.conv1 = _conv(shape.in_channels, inner, kernel=3, stride=shape.stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, shape.out_channels, kernel=3)
        self.bn2 = nn.BatchNorm2d(shape.out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        added: Tensor = self.bn2(self.conv2(x))
        return added


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions; the stride is in the 3x3, as in the published notebooks."""

    n_layers = 3

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        first, second = shape.inner
        self.conv1 = _conv(shape.in_channels, first, kernel=1)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = _conv(first, second, kernel=3, stride=shape.stride)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = _conv(second, shape.out_channels, kernel=1)
        self.bn3 = nn.BatchNorm2d(shape.out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        added: Tensor = self.bn3(self.conv3(x))
        return added


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def make_shortcut(shape: BlockShape) -> nn.Module:
    """Make the path around a block: nothing inside a group, else, where it `projects`, 1x1 convolution and BatchNorm.

    `conv` takes one of 2x2 pixels to the 1x1 convolution, as published; `avgpool` takes their mean, with the same parameters and
    MACs, so that it can start as an identity. An odd map is rounded up, like a strided convolution's. The stride is in the pool
    in both: the gradient of a strided 1x1 convolution of fewer than 8 channels overwrites foreign memory in oneDNN 3.13.
    Source: `avgpool` is ResNet-D, arXiv 1812.01187, section 4.2; the gradient: https://github.com/uxlfoundation/oneDNN/issues/6035.
    """
    if not shape.projects:
        return nn.Identity()
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if shape.stride > 1:
        side = shape.stride if shape.shortcut == "avgpool" else 1
        parts["pool"] = nn.AvgPool2d(side, shape.stride, ceil_mode=True, count_include_pad=False)
    parts["conv"] = _conv(shape.in_channels, shape.out_channels, kernel=1)
    parts["bn"] = nn.BatchNorm2d(shape.out_channels)
    return nn.Sequential(parts)


def _conv(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def _pass_on(shortcut: nn.Module, features: Tensor | None) -> None:
    """Make a shortcut between groups give the old channels as they come in, and random mixtures of them as the new channels.

    The 1x1 weights are [I; R] with R as drawn. The head, [W, 0], does not see R at first. With [I; 0] the new channels would be
    0, and so would every gradient at them and at their columns in the head: they would stay dead for ever.

    On the old channels gamma = sqrt(variance + eps), beta = mean: with these in the running statistics BatchNorm is an identity in
    eval mode. Mean and variance are of `features` behind the pool, so that batch statistics in training, or re-estimated ones,
    nearly cancel too; without `features` they are 0 and 1, and training standardises the channels from its first step.

    The mean over a map of 2x2 means is the mean of the map only where H and W are even. Where they are odd the last row and
    column weigh more (7 -> 4), and the logits move; so they do with a strided shortcut (`conv`), which drops pixels.
    """
    parts = dict(shortcut.named_children())
    conv, bn = parts["conv"], parts["bn"]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    n_old = conv.in_channels
    conv.weight[:n_old, :, 0, 0] = torch.eye(n_old)
    if features is not None:
        before = conv(parts["pool"](features) if "pool" in parts else features)
        bn.running_mean.copy_(before.mean(dim=(0, 2, 3)))
        bn.running_var.copy_(before.var(dim=(0, 2, 3), correction=0))
    bn.weight[:n_old] = (bn.running_var[:n_old] + bn.eps).sqrt()
    bn.bias[:n_old] = bn.running_mean[:n_old]
