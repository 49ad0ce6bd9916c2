"""Make a network by its name: one of timm or torchvision, or of a function that was registered."""

from pathlib import Path
from typing import Any

import torch

from odn.backbones import RESNETS, facts, is_outside
from odn.models.architecture import Architecture
from odn.models.families import registered
from odn.models.network import DepthNetwork, build


def backbone(
    name: str,
    *,
    in_channels: int,
    n_classes: int,
    seed: int = 0,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    **arguments: Any,
) -> DepthNetwork:
    """Make a whole network, with first weights from the seed, or pretrained ones but for the head.

    `name` is `timm/NAME` or `torchvision/NAME`, or a function's that was registered; `arguments` are its own. `weights` is a file, or
    `timm` for timm's own; `image_size` (H, W) is needed by transformers of images that are not as large as those they were trained on.

    Raises:
        ValueError: there is no such family, or it does not take these arguments.
        ConfigError, DataError, MissingInputError: there is no such network, or the weights are not there, or not this network's.
    """
    if is_outside(name):
        return _outside(
            name, in_channels=in_channels, n_classes=n_classes, seed=seed, weights=weights, size=image_size, arguments=arguments
        )
    if name in RESNETS:
        raise ValueError(f"name: {name} is made by odn.resnet({name!r}, in_channels={in_channels}, n_classes={n_classes})")
    made_by = registered(name)
    if made_by is None:
        raise ValueError(f"name: must be timm/NAME, torchvision/NAME, or one that odn.register made known; got {name!r}")
    if weights is not None or image_size is not None:
        raise ValueError("weights and image_size are for networks of timm and torchvision; your own function takes what it needs")
    made_by.require(in_channels, arguments)
    with torch.random.fork_rng(devices=[]):
        n_blocks = len(made_by.build(in_channels=in_channels, **arguments)[1])
    architecture = Architecture(
        family=name, name=name, arguments=arguments, in_channels=in_channels, n_classes=n_classes, n_blocks=n_blocks, depth=n_blocks
    )
    return build(architecture, torch.Generator().manual_seed(seed))


def _outside(
    name: str,
    *,
    in_channels: int,
    n_classes: int,
    seed: int,
    weights: str | Path | None,
    size: int | tuple[int, int] | None,
    arguments: dict[str, Any],
) -> DepthNetwork:
    known = facts(name)
    if known.sized is not None:
        height, width = (size, size) if isinstance(size, int) else size or (known.size, known.size)
        arguments = {known.sized: [height, width] if name.startswith("timm/") else height} | arguments
    architecture = Architecture(
        family=name.partition("/")[0],
        name=name,
        arguments=arguments,
        in_channels=in_channels,
        n_classes=n_classes,
        n_blocks=known.n_blocks,
        depth=known.n_blocks,
    )
    if weights is not None:
        from odn.models.pretrained import read_weights, timm_weights, with_weights

        tensors = timm_weights(name) if weights == "timm" else read_weights(Path(weights))
        architecture = with_weights(architecture, tensors, shown_as=str(weights))
    return build(architecture, torch.Generator().manual_seed(seed))
