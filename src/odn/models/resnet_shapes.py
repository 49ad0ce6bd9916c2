"""The shapes of residual networks: variants by name, what is left of one whose channels or blocks were cut, and each block. No torch.

Source: He et al., Deep Residual Learning, arXiv 1512.03385 (section 3.3 and table 1).
"""

import dataclasses
import functools
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from odn.config import Config
from odn.models.architecture import Architecture, Cut
from odn.records import Record, parse_record

A = TypeVar("A", bound=Architecture)
Stem = Literal["cifar", "imagenet"]
Shortcut = Literal["avgpool", "conv"]
WIDEST = 4  # multiplier of channels, as model.width
BASE_CHANNELS = (64, 128, 256, 512)  # of the four groups, before the width multiplier; the last three halve the map


@dataclasses.dataclass(frozen=True)
class Variant:
    """Be one row of the table of variants: the kind of block, how many of it in each group, and whose it is."""

    block: Literal["basic", "bottleneck"]
    group_sizes: tuple[int, int, int, int]
    source: str

    @property
    def n_blocks(self) -> int:
        """Count the blocks of all groups."""
        return sum(self.group_sizes)

    @property
    def n_inner(self) -> int:
        """Count the convolutions of a block between its first and its last."""
        return 1 if self.block == "basic" else 2

    @property
    def expand_ratio(self) -> int:
        """Return the output channels of a block over its inner channels, before any cut."""
        return 1 if self.block == "basic" else 4


VARIANTS = {
    "resnet18": Variant("basic", (2, 2, 2, 2), "arXiv 1512.03385, table 1, 18-layer"),
    "resnet34": Variant("basic", (3, 4, 6, 3), "arXiv 1512.03385, table 1, 34-layer"),
    "resnet50": Variant("bottleneck", (3, 4, 6, 3), "arXiv 1512.03385, table 1, 50-layer"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(Record):
    """Hold the arguments of a residual network; with a `cut` the blocks are those that it lists, with the channels that it says."""

    stem: Stem
    width: Annotated[float, Field(gt=0, le=WIDEST)]  # multiplies every channel count
    shortcut: Shortcut  # at a group change: average pool and 1x1 convolution, or a strided 1x1 convolution as published
    cut: Cut | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; a `cut` only where there is one."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in plain.items() if name != "cut" or value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Say what a block is made for: its channels, the stride of its map, and the kind of its shortcut."""

    in_channels: int
    inner: tuple[int, ...]  # channels of the inner convolutions; none where the residual was cut
    out_channels: int
    stride: int
    shortcut: str
    projects: bool  # the shortcut changes the width or the map


def resnet_architecture(
    name: str,
    *,
    in_channels: int,
    n_classes: int,
    depth: int | None = None,
    stem: Stem = "cifar",
    width: float = 1.0,
    shortcut: Shortcut = "avgpool",
    cut: Cut | None = None,
) -> Architecture:
    """Describe a residual network, whole or kept to `depth` blocks.

    Raises:
        ValueError: there is no such variant, or an argument is out of range.
    """
    arguments, n_blocks = Arguments(stem=stem, width=float(width), shortcut=shortcut, cut=cut).to_dict(), variant_of(name).n_blocks
    return Architecture(
        family="resnet",
        name=name,
        arguments=arguments,
        in_channels=in_channels,
        n_classes=n_classes,
        n_blocks=n_blocks,
        depth=n_blocks if depth is None else depth,
    )


def configured(config: Config, *, in_channels: int, n_classes: int, depth: int | None = None) -> Architecture:
    """Describe the configured backbone, whole or kept to `depth` blocks, for data of this shape."""
    model, shortcut = config.model, config.growth.shortcut
    return resnet_architecture(
        model.backbone,
        in_channels=in_channels,
        n_classes=n_classes,
        depth=depth,
        stem=model.stem,
        width=model.width,
        shortcut=shortcut,
    )


def arguments_of(architecture: Architecture) -> Arguments:
    """Return the arguments of a residual network, typed.

    Raises:
        ValueError: one is unknown, missing, of the wrong type or out of range.
    """
    try:
        return _parsed(json.dumps(architecture.arguments, sort_keys=True))
    except ValueError as error:
        raise ValueError(f"arguments: {error}") from None


@functools.lru_cache(maxsize=1024)
def _parsed(arguments: str) -> Arguments:
    return parse_record(Arguments, arguments)


def cut_of(architecture: Architecture) -> Cut | None:
    """Return what is left of a backbone that lost channels or blocks; None where it is a prefix."""
    return arguments_of(architecture).cut


def stem_channels(architecture: Architecture) -> int:
    """Return the channels that the stem writes."""
    arguments = arguments_of(architecture)
    return arguments.cut.stem if arguments.cut is not None else scaled(BASE_CHANNELS[0], arguments.width)


def block_shapes(architecture: Architecture) -> list[BlockShape]:
    """List the shapes of the first `architecture.depth` blocks, or of those that the cut lists.

    Raises:
        ValueError: a cut block has another number of inner convolutions than this backbone's, or a shortcut that does not fit.
    """
    whole, cut, n_inner = _whole(architecture), cut_of(architecture), variant_of(architecture.name).n_inner
    if cut is None:
        return whole[: architecture.depth]
    shapes, in_channels = [], cut.stem
    for block in cut.blocks:
        shape = dataclasses.replace(whole[block.number - 1], in_channels=in_channels, inner=block.inner, out_channels=block.out)
        if block.inner and len(block.inner) != n_inner:
            raise ValueError(f"cut: block {block.number} has {n_inner} inner convolutions; got channels {block.inner}")
        if not shape.projects and in_channels != block.out:
            raise ValueError(f"cut: block {block.number} passes on {in_channels} channels; got {block.out}")
        shapes.append(shape)
        in_channels = block.out
    return shapes


def _whole(architecture: Architecture) -> list[BlockShape]:
    variant, arguments = variant_of(architecture.name), arguments_of(architecture)
    shapes: list[BlockShape] = []
    in_channels = scaled(BASE_CHANNELS[0], arguments.width)
    for group, (base, size) in enumerate(zip(BASE_CHANNELS, variant.group_sizes, strict=True)):
        inner = scaled(base, arguments.width)
        for position in range(size):
            stride, out_channels = 2 if group > 0 and position == 0 else 1, inner * variant.expand_ratio
            shapes.append(
                BlockShape(
                    in_channels=in_channels,
                    inner=(inner,) * variant.n_inner,
                    out_channels=out_channels,
                    stride=stride,
                    shortcut=arguments.shortcut,
                    projects=stride > 1 or in_channels != out_channels,
                )
            )
            in_channels = out_channels
    return shapes


def scaled(channels: int, width: float) -> int:
    """Return the channels at a width, one at least."""
    return max(1, round(channels * width))


def variant_of(name: str) -> Variant:
    """Return a row of the table of variants.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in VARIANTS:
        raise ValueError(f"name: must be one of {', '.join(VARIANTS)}; got {name!r}")
    return VARIANTS[name]
