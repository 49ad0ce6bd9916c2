"""Residual networks as a family: how they are checked, kept to a depth, cut, counted, and spread over a ladder. No torch."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

from odn.config import halvings_of, rungs_of
from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.resnet_shapes import A, arguments_of, block_shapes, cut_of, stem_channels, variant_of

SMALLEST = (10, 13, 16, 20)  # channels of the streams of the smallest spread network, group by group
FEW_MACS = (6, 12, 24, 48)  # in place of these, where MACs are to be saved: about as many in each group
STAGGER = (0.6, 0.3, 0.1, -0.1)  # of a block, between groups, so that blocks come one after the other as networks grow
INNER = 0.3  # of its inner channels, as a fraction of those of its streams
LATER = 3  # power of the size with which that fraction, and the number of blocks, grow to those of the backbone: streams widen first


class ResNet:
    """Be the family of residual networks."""

    draws_itself = False
    knows_meta = True

    def check(self, architecture: Architecture) -> None:
        """Refuse unknown variants, arguments and cuts."""
        n_blocks, cut = variant_of(architecture.name).n_blocks, cut_of(architecture)
        if architecture.n_blocks != n_blocks:
            raise ValueError(f"n_blocks: {architecture.name} has {n_blocks} blocks; got {architecture.n_blocks}")
        if cut is not None:
            numbers = [block.number for block in cut.blocks]
            if len(numbers) != architecture.depth or any(b <= a for a, b in pairwise(numbers)) or numbers[-1] > n_blocks:
                raise ValueError(
                    f"cut: expected {architecture.depth} blocks of {architecture.name}, ascending up to {n_blocks}; got {numbers}"
                )

    def at(self, architecture: A, depth: int) -> A:
        """Keep a prefix; of a cut network, its first `depth` blocks."""
        arguments = arguments_of(architecture)
        if arguments.cut is None:
            return dataclasses.replace(architecture, depth=depth)
        cut = dataclasses.replace(arguments.cut, blocks=arguments.cut.blocks[:depth])
        return dataclasses.replace(architecture, depth=depth, arguments=dataclasses.replace(arguments, cut=cut).to_dict())

    def whole(self, architecture: A) -> A:
        """Keep all blocks, uncut."""
        arguments = dataclasses.replace(arguments_of(architecture), cut=None).to_dict()
        return dataclasses.replace(architecture, depth=architecture.n_blocks, arguments=arguments)

    def groups(self, architecture: Architecture) -> tuple[int, ...]:
        """Return the group of each block, by the size of its map."""
        return tuple(group for group, size in enumerate(variant_of(architecture.name).group_sizes) for _ in range(size))

    def part_macs(self, architecture: Architecture, height: int, width: int) -> tuple[int, list[tuple[int, int]]]:
        """Count the multiply-accumulates of the stem, and of each block's residual and shortcut, for one image.

        By formula, as a search among sub-networks asks thousands of times; a test holds it to what torch computes. Every kernel has an
        odd size and pads by half of it: a stride rounds up.
        """
        n_pixels, kind = (height, width), variant_of(architecture.name).block
        large = arguments_of(architecture).stem == "imagenet"
        n_pixels = _strided(n_pixels, 2 if large else 1)
        stem = (49 if large else 9) * architecture.in_channels * stem_channels(architecture) * n_pixels[0] * n_pixels[1]
        n_pixels = _strided(n_pixels, 2 if large else 1)
        blocks = []
        for shape in block_shapes(architecture):
            before, n_pixels = n_pixels[0] * n_pixels[1], _strided(n_pixels, shape.stride)
            after, residual = n_pixels[0] * n_pixels[1], 0
            if shape.inner and kind == "basic":
                residual = 9 * shape.inner[0] * (shape.in_channels + shape.out_channels) * after
            elif shape.inner:
                first, second = shape.inner
                residual = shape.in_channels * first * before + second * (9 * first + shape.out_channels) * after
            blocks.append((residual, shape.in_channels * shape.out_channels * after if shape.projects else 0))
        return stem, blocks

    def inner_channels(self, architecture: Architecture, widths: Sequence[float]) -> list[tuple[int, ...]]:
        """Return how many inner channels each block keeps, at least one, of an uncut backbone; `widths` is a fraction a group.

        Raises:
            ValueError: the architecture is cut already, or there are not as many widths as groups.
        """
        groups, shapes = self.groups(architecture), block_shapes(architecture)
        if cut_of(architecture) is not None or len(widths) != groups[-1] + 1:
            raise ValueError(f"expected an uncut backbone, and a width for each of its {groups[-1] + 1} groups; got {widths}")
        return [
            tuple(max(1, round(widths[group] * channels)) for channels in shape.inner)
            for group, shape in zip(groups[: len(shapes)], shapes, strict=True)
        ]

    def with_cut(self, architecture: Architecture, cut: Cut) -> Architecture:
        """Describe what is left of a backbone."""
        arguments = dataclasses.replace(arguments_of(architecture), cut=cut).to_dict()
        return dataclasses.replace(architecture, arguments=arguments, depth=len(cut.blocks))

    def narrowed(self, architecture: Architecture, widths: Sequence[float]) -> Architecture:
        """Describe the network with only a fraction of the inner channels of each group; the same where nothing is cut."""
        shapes, inner = block_shapes(architecture), self.inner_channels(architecture, widths)
        if all(kept == shape.inner for kept, shape in zip(inner, shapes, strict=True)):
            return architecture
        blocks = [
            CutBlock(number=number, inner=kept, out=shape.out_channels)
            for number, (kept, shape) in enumerate(zip(inner, shapes, strict=True), start=1)
        ]
        return self.with_cut(architecture, Cut(stem=shapes[0].in_channels, blocks=tuple(blocks)))

    def counts(self, architecture: Architecture, height: int, width: int) -> dict[str, int]:
        """Count parameters, bytes of the state dict, and multiply-accumulates for one image, with one head; a test holds it to `cost`."""
        norms, weights, in_channels = [stem_channels(architecture)], 0, architecture.in_channels
        weights += (49 if arguments_of(architecture).stem == "imagenet" else 9) * in_channels * norms[0]
        kernels = (9, 9) if variant_of(architecture.name).block == "basic" else (1, 9, 1)
        for shape in block_shapes(architecture):
            if shape.inner:
                written = (*shape.inner, shape.out_channels)
                weights += sum(kernel * a * b for kernel, a, b in zip(kernels, (shape.in_channels, *written), written, strict=False))
                norms += written
            if shape.projects:
                weights += shape.in_channels * shape.out_channels
                norms.append(shape.out_channels)
            in_channels = shape.out_channels
        weights += in_channels * architecture.n_classes
        params = weights + architecture.n_classes + 2 * sum(norms)
        stem, blocks = self.part_macs(architecture, height, width)
        macs = stem + sum(residual + shortcut for residual, shortcut in blocks) + in_channels * architecture.n_classes
        return {"params": params, "bytes": 4 * (params + 2 * sum(norms)) + 8 * len(norms), "macs": macs}

    def n_rungs(self, whole: Architecture) -> int:
        """Count the rungs of the ladder up to a whole backbone."""
        return rungs_of(whole.name, width=arguments_of(whole).width)

    def halvings(self, whole: Architecture) -> int:
        """Count how often a whole backbone is halved down to the first rung."""
        return halvings_of(whole.name, width=arguments_of(whole).width)

    def spread(self, whole: Architecture, *, size: float, few_macs: bool, blocks: float | None = None) -> Architecture:
        """Describe a network that keeps the strides of a whole backbone: `size` 1 is its channels and blocks, 0 those of `SMALLEST`.

        In between, the channels of the streams are interpolated on a log scale; below 0 the same line goes on. Small networks gain from
        streams that are wide for their size beside narrow inner channels, and from a block in every group: the inner channels of a block
        are nearly a constant fraction of its stream, and blocks stay few, until the streams are nearly those of the backbone. With
        `few_macs` 0 is `FEW_MACS`: wider where maps are small. The number of blocks is that of size `blocks`, where one is given.
        """
        shapes, kept, first = block_shapes(whole), [], 1
        deep, thick = (max(0.0, grown) ** LATER for grown in (size if blocks is None else blocks, size))

        def between(least: float, most: float, at: float) -> float:
            return math.exp((1 - at) * math.log(min(least, most)) + at * math.log(most))

        smallest = FEW_MACS if few_macs else SMALLEST
        for n, stream, stagger in zip(variant_of(whole.name).group_sizes, smallest, STAGGER, strict=True):
            for number in range(first, first + min(n, max(1, round(n * deep + stagger)))):
                shape = shapes[number - 1]
                out = between(stream, shape.out_channels, size)
                inner = (out * between(INNER, channels / shape.out_channels, thick) for channels in shape.inner)
                kept.append(CutBlock(number=number, inner=tuple(max(1, round(channels)) for channels in inner), out=max(1, round(out))))
            first += n
        return self.with_cut(whole, Cut(stem=kept[0].out, blocks=tuple(kept)))


def _strided(n_pixels: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-n_pixels[0] // stride), -(-n_pixels[1] // stride)
