"""Describe the configured backbone for data of a shape. No torch."""

from odn.backbones import Facts, can_be_narrowed, facts, is_outside, n_blocks_of
from odn.config import Config
from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.outside import require_arguments
from odn.models.resnet_shapes import configured as configured_resnet


def configured(config: Config, *, in_channels: int, n_classes: int, height: int, width: int) -> Architecture:
    """Describe the whole backbone.

    Raises:
        ConfigError: images are smaller than its stride, or `model.arguments` are not those of its constructor.
    """
    model = config.model
    if can_be_narrowed(model.backbone):
        return configured_resnet(config, in_channels=in_channels, n_classes=n_classes)
    arguments, family = dict(model.arguments), model.backbone
    if is_outside(model.backbone):
        known, family = facts(model.backbone), model.backbone.partition("/")[0]
        _require_large_enough(known, arguments.get("patch_size", known.stride), height=height, width=width)
        if known.sized is not None:
            arguments.setdefault(known.sized, [height, width] if family == "timm" else height)
    n_blocks = n_blocks_of(model.backbone, model.arguments)
    try:
        require_arguments(arguments)
        return Architecture(
            family=family,
            name=model.backbone,
            arguments=arguments,
            in_channels=in_channels,
            n_classes=n_classes,
            n_blocks=n_blocks,
            depth=n_blocks,
        )
    except ValueError as error:
        raise ConfigError(f"model.{error}") from None


def _require_large_enough(known: Facts, stride: object, *, height: int, width: int) -> None:
    if isinstance(stride, int) and min(height, width) < stride:
        raise ConfigError(
            f"data.image_size: images of {height} x {width} pixels are smaller than the stride of {known.name}, {stride}: not one position "
            f"of its last map is whole; it was trained on {known.size} x {known.size}; use images of {stride} pixels a side or more"
        )
