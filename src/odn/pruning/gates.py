"""Gate a network: a number from 0 to 1 for each block, each channel of each stream, and each inner channel of each block.

A stream is what blocks pass on and add to: it begins at the stem and at each shortcut that projects. A gate multiplies gamma and beta of
each BatchNorm that writes the channel, so that the gated network is the same network with other numbers in its BatchNorms. A channel whose
gate is 0 is 0 wherever it is read, behind the rectifier and in the shortcut too, and can go. The gate of a block multiplies its residual.
Source: BatchNorm's scales as gates: Liu et al. (Network Slimming), arXiv 1708.06519; of residuals: Huang and Wang, arXiv 1707.01213.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from odn.errors import ConfigError
from odn.models.abilities import Prunable, PrunableStem, able
from odn.models.architecture import Architecture, Cut
from odn.models.network import DepthNetwork


@dataclass(frozen=True)
class GatedConv:
    """Name a convolution and the BatchNorm behind it, and say which gates open what it reads, what it writes, and itself."""

    name: str
    norm: str
    reads: slice | None  # None: the image
    writes: slice
    block: int | None  # the gate of the block whose residual it is part of
    adds: bool  # the last of a residual, whose output the gate of the block multiplies


@dataclass(frozen=True)
class Gates:
    """Say which gate is which in a vector of all of them: streams, then inner channels, then blocks, from the stem on."""

    streams: tuple[slice, ...]
    inner: tuple[tuple[slice, ...], ...]  # of each block
    blocks: tuple[int, ...]
    projects: tuple[bool, ...]  # of each block: closed, it keeps its shortcut
    convs: tuple[GatedConv, ...]

    @property
    def n(self) -> int:
        """Count the gates."""
        return self.blocks[-1] + 1

    @property
    def groups(self) -> Iterator[tuple[slice, int | None]]:
        """Yield the channels that are read together, and the gate of the block that they are inside of."""
        yield from ((stream, None) for stream in self.streams)
        for block, inner in zip(self.blocks, self.inner, strict=True):
            yield from ((channels, block) for channels in inner)


def gates_of(network: DepthNetwork) -> Gates:
    """List the gates of a network that is not cut.

    Raises:
        ConfigError: it has a part that cannot be pruned.
    """
    stem, blocks = prunable(network)
    count = 0

    def take(n: int) -> slice:
        nonlocal count
        count += n
        return slice(count - n, count)

    projects = tuple(not block.passes_on for block in blocks)
    conv, norm = stem.layer()
    streams = [take(_written(network, f"stem.{conv}")), *(take(block.out_channels) for block in blocks if not block.passes_on)]
    inner = tuple(
        tuple(take(_written(network, f"blocks.{number}.{conv}")) for conv, _ in block.residual_layers()[:-1])
        for number, block in enumerate(blocks)
    )
    indices = tuple(range(count, count + len(blocks)))
    convs, stream = [GatedConv(f"stem.{conv}", f"stem.{norm}", None, streams[0], None, adds=False)], 0
    for number, (block, own) in enumerate(zip(blocks, projects, strict=True)):
        name, before = f"blocks.{number}", streams[stream]
        stream += own
        after = streams[stream]
        between = (before, *inner[number], after)
        residual = block.residual_layers()
        for place, (conv, norm) in enumerate(residual):
            last = place + 1 == len(residual)
            reads, writes = between[place : place + 2]
            convs.append(GatedConv(f"{name}.{conv}", f"{name}.{norm}", reads, writes, indices[number], adds=last))
        convs += [GatedConv(f"{name}.{conv}", f"{name}.{norm}", before, after, None, adds=False) for conv, norm in block.shortcut_layers()]
    return Gates(tuple(streams), inner, indices, projects, tuple(convs))


@runtime_checkable
class PrunableFamily(Protocol):
    """Describe networks of which blocks and channels are missing."""

    def with_cut(self, architecture: Architecture, cut: Cut) -> Architecture:
        """Return the description of what is left."""


def prunable_family(architecture: Architecture) -> PrunableFamily:
    """Return the family of a network, as one that can be pruned.

    Raises:
        ConfigError: it cannot.
    """
    made_by = architecture.made_by
    if not isinstance(made_by, PrunableFamily):
        raise ConfigError(f"search.mode: prune: networks of the family {architecture.family} cannot be pruned; choose another search.mode")
    return made_by


def prunable(network: DepthNetwork) -> tuple[PrunableStem, list[Prunable]]:
    """Return the stem and the blocks, as what can be pruned.

    Raises:
        ConfigError: one cannot.
    """
    asked = {"asked_by": "search.mode: prune", "way_out": "choose another search.mode"}
    (stem,) = able([network.stem], PrunableStem, **asked)
    return stem, able(list(network.blocks), Prunable, **asked)


def _written(network: DepthNetwork, name: str) -> int:
    conv = network.get_submodule(name)
    assert isinstance(conv, nn.Conv2d), "a layer that can be pruned is a convolution"
    return conv.out_channels


def gated(network: DepthNetwork, gates: Gates, values: Tensor) -> dict[str, Tensor]:
    """Return gamma and beta of every BatchNorm under these values (G,), by their names in the state dict; gradients reach both."""
    parameters, scaled = dict(network.named_parameters()), {}
    for conv in gates.convs:
        scale = values[conv.writes]
        if conv.adds:
            scale = scale * values[conv.block]
        for kind in ("weight", "bias"):
            scaled[f"{conv.norm}.{kind}"] = parameters[f"{conv.norm}.{kind}"] * scale
    return scaled


def gated_forward(network: DepthNetwork, gates: Gates, values: Tensor, images: Tensor) -> Tensor:
    """Return the logits (N, K) of images (N, C, H, W) under the values (G,) of all gates."""
    logits: Tensor = functional_call(network, gated(network, gates, values), (images,))
    return logits


@torch.no_grad()
def with_gates(network: DepthNetwork, gates: Gates, values: Tensor) -> DepthNetwork:
    """Return a copy of the network with the values (G,) multiplied into its BatchNorms."""
    copied = copy.deepcopy(network)
    parameters = dict(copied.named_parameters())
    for name, tensor in gated(network, gates, values).items():
        parameters[name].copy_(tensor)
    return copied
