"""Grow a network: append blocks so that what it has learnt is kept, exactly where that is possible."""

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from odn.models.abilities import Growable, able
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build

Init = Literal["zero", "copy", "pretrained"]


@torch.no_grad()
def expanded(
    network: DepthNetwork,
    depth: int,
    *,
    init: Init,
    generator: torch.Generator,
    images: Tensor | None = None,
    backbone: Architecture | None = None,
) -> DepthNetwork:
    """Return a new network of `depth` blocks that starts from `network`, on its device and in its mode.

    Stem and old blocks are copied. Each new block and the head at `depth` start by `init`; fresh values come from `generator`:

    - `zero`: as the blocks' `start_silent` says. Inside a group of a ResNet the logits stay equal bit for bit, in eval and in train
      mode; where the group changes and the shortcut is `avgpool`, within 1e-5 in eval mode where H and W are even.
    - `copy`: each tensor copies the one of that name and shape in the block before, where both pass maps of one size on; else fresh.
    - `pretrained`: blocks with the weights that `backbone`, which describes the whole network, has for them; the head is fresh where it
      reads other features than the old one.

    The new head is the old one where the width stays and [W, 0] where it grows. It is the only one. `images`
    (N, C, H, W), a batch as in training, lets a changed group keep its logits in train mode too, and after BatchNorm is re-estimated.
    Source: `zero` is arXiv 1706.02677, section 5.1; `copy` is arXiv 1906.02909, section 3.

    Raises:
        ValueError: `depth` is not deeper than `network`, or `network` lacks a head at its own depth.
        ConfigError: a block cannot start as `init` says.
    """
    if depth <= network.depth or network.depth not in network.head_depths:
        raise ValueError(f"cannot expand to depth {depth}: have {network.depth} blocks and heads at {list(network.head_depths)}")
    described = network.architecture if backbone is None else backbone
    wider = build(described.at(depth), generator, heads=(depth,))
    old, new = network.state_dict(), wider.state_dict()
    for name in new.keys() & old.keys():
        new[name].copy_(old[name])
    if init == "zero":
        features = None if images is None else _features(network, images)
        for block in able(list(wider.blocks)[network.depth :], Growable, asked_by="growth.init: zero", way_out="set growth.init to copy"):
            features = block.start_silent(features)
    elif init == "copy":
        for before, new_block in pairwise(list(wider.blocks)[network.depth - 1 :]):
            if getattr(new_block, "passes_on", True):
                _copy_alike(before, new_block)
    if init != "pretrained" or _read_alike(wider.head(depth), network.head(network.depth)):
        _widen(new, old, depth=depth, old_depth=network.depth)
    return wider.to(next(network.parameters()).device).train(network.training)


def inherited_names(old: DepthNetwork, new: DepthNetwork) -> dict[str, str]:
    """Map each parameter of an expanded network that is inherited to the old parameter's name: the same, but for the new head."""
    mine = {name for name, _ in old.named_parameters()}
    names = {name: name for name, _ in new.named_parameters() if name in mine}
    for part in ("weight", "bias"):
        names[f"heads.{new.depth}.{part}"] = f"heads.{old.depth}.{part}"
    return names


def carried(state: Mapping[str, Tensor], *, old: DepthNetwork, new: DepthNetwork) -> dict[str, Tensor]:
    """Carry a tensor per parameter, such as momentum, over an expansion: copies by new name, 0 where the new head is wider."""
    result, names = {}, inherited_names(old, new)
    for name, parameter in new.named_parameters():
        source = state.get(names.get(name, ""))
        if source is not None:
            result[name] = torch.zeros_like(parameter, dtype=source.dtype, device=source.device)
            shared = tuple(slice(0, min(sizes)) for sizes in zip(source.shape, parameter.shape, strict=True))
            result[name][shared] = source[shared]
    return result


def _read_alike(new: nn.Module, old: nn.Module) -> bool:
    """Return whether two heads read features of one kind: as many, behind tails of one kind."""
    kinds = [[type(module) for module in head.modules()] for head in (new, old)]
    return new.weight.shape == old.weight.shape and kinds[0] == kinds[1]


def _features(network: DepthNetwork, images: Tensor) -> Tensor:
    """Return what the last block gives while training, on the CPU: (N, C, H, W); the network itself is left as it was."""
    network = copy.deepcopy(network).train()
    x: Tensor = network.stem(images.to(next(network.parameters()).device))
    for block in network.blocks:
        x = block(x)
    return x.float().cpu()


def _copy_alike(source: nn.Module, target: nn.Module) -> None:
    values = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in values and values[name].shape == tensor.shape:
            tensor.copy_(values[name])


def _widen(new: Mapping[str, Tensor], old: Mapping[str, Tensor], *, depth: int, old_depth: int) -> None:
    weight, old_weight = new[f"heads.{depth}.weight"], old[f"heads.{old_depth}.weight"]
    weight.zero_()
    shared = min(weight.shape[1], old_weight.shape[1])
    weight[:, :shared] = old_weight[:, :shared]  # (K, C): [W, 0]
    new[f"heads.{depth}.bias"].copy_(old[f"heads.{old_depth}.bias"])
