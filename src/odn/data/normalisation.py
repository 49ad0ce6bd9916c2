"""By which mean and deviation images are normalised: their own, or those of the images that the backbone was trained on. No torch."""

from odn.backbones import facts
from odn.config import Config
from odn.errors import ConfigError

Scale = tuple[tuple[float, ...], tuple[float, ...]]


def normalisation(config: Config, *, channels: int) -> Scale | None:
    """Return mean and deviation of each channel where the backbone brings them, in [0, 1]; None: those of the training images.

    Grey images take the average of the three colours'.

    Raises:
        ConfigError: the backbone was trained on RGB, and the images have neither one channel nor three.
    """
    if not config.normalises_by_backbone:
        return None
    known = facts(config.model.backbone)
    if channels == len(known.mean):
        return known.mean, known.std
    if channels != 1:
        raise ConfigError(
            f"data.normalise: {known.name} was trained on {len(known.mean)} channels, the images have {channels}; set it to data, "
            "and model.weights to null"
        )
    return (sum(known.mean) / len(known.mean),), (sum(known.std) / len(known.std),)
