"""Grow a network: append blocks so that what it has learnt is kept, exactly where that is possible.

A block is relu(residual + shortcut). Within a group the shortcut passes x on, and x >= 0 because it left a relu: a residual of 0
makes the block an exact identity. Between groups the shortcut halves the map and widens it.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from odn.models.network import DepthNetwork, block_of, build
from odn.models.resnet import ResidualBlock

Init = Literal["zero", "gauss", "copy", "reload"]


@torch.no_grad()
def expanded(
    network: DepthNetwork,
    depth: int,
    *,
    init: Init,
    generator: torch.Generator,
    heads: Iterable[int] | None = None,
    images: Tensor | None = None,
) -> DepthNetwork:
    """Return a new network of `depth` blocks that starts from `network`, on its device and in its mode.

    Stem and old blocks are copied. Each new block and the head at `depth` start by `init`; fresh values come from `generator`:

    - `zero`: the last gamma is 0, so that inside a group the logits stay equal bit for bit, in eval and in train mode. Where the
      group changes and the shortcut is `avgpool`, see `_pass_on`: logits stay within 1e-5 in eval mode where H and W are even.
    - `gauss`: fresh blocks.
    - `copy`: each tensor copies the one of that name and shape in the block before, if that is of the same group; else fresh.
    - `reload`: fresh blocks and a fresh head: the caller loads the old part from a checkpoint.

    The new head is the old one where the width stays and [W, 0] where it grows, except for `reload`. `heads` lists all heads
    of the new network, only the one at `depth` unless said otherwise; those that `network` has are copied. `images` (N, C, H, W), a
    batch as in training, lets a changed group keep its logits in train mode too, and after BatchNorm is re-estimated.
    Source: `zero` is arXiv 1706.02677, section 5.1; `gauss` and `copy` are arXiv 1906.02909, section 3.

    Raises:
        ValueError: `depth` is not deeper than `network`, or `network` lacks a head at its own depth.
    """
    if depth <= network.depth or network.depth not in network.head_depths:
        raise ValueError(f"cannot expand to depth {depth}: have {network.depth} blocks and heads at {list(network.head_depths)}")
    wider = build(network.architecture.at(depth), generator, heads=(depth,) if heads is None else heads)
    old, new = network.state_dict(), wider.state_dict()
    for name in new.keys() & old.keys():
        new[name].copy_(old[name])
    features = None if images is None else _features(network, images)
    for number in range(network.depth + 1, depth + 1):
        block = block_of(wider, number)
        if init == "zero":
            features = _silence(block, features)
        elif init == "copy" and isinstance(block.shortcut, nn.Identity):
            _copy_alike(block_of(wider, number - 1), block)
    if init != "reload":
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
            result[name][tuple(slice(0, size) for size in source.shape)] = source
    return result


def _features(network: DepthNetwork, images: Tensor) -> Tensor:
    """Return what the last block gives while training, on the CPU: (N, C, H, W); the network itself is left as it was."""
    network = copy.deepcopy(network).train()
    x: Tensor = network.stem(images.to(next(network.parameters()).device))
    for block in network.blocks:
        x = block(x)
    return x.float().cpu()


def _silence(block: ResidualBlock, features: Tensor | None) -> Tensor | None:
    """Turn the residual off, make the shortcut pass its input on; return the features behind the block where known."""
    block.last_norm.weight.zero_()
    if not isinstance(block.shortcut, nn.Identity):
        _pass_on(block.shortcut, features)
    return None if features is None else copy.deepcopy(block).train()(features)


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


def _copy_alike(source: nn.Module, target: nn.Module) -> None:
    values = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in values and values[name].shape == tensor.shape:
            tensor.copy_(values[name])


def _widen(new: Mapping[str, Tensor], old: Mapping[str, Tensor], *, depth: int, old_depth: int) -> None:
    weight, old_weight = new[f"heads.{depth}.weight"], old[f"heads.{old_depth}.weight"]
    weight.zero_()
    weight[:, : old_weight.shape[1]] = old_weight  # (K, C): [W, 0]
    new[f"heads.{depth}.bias"].copy_(old[f"heads.{old_depth}.bias"])
