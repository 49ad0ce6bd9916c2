"""What every finished model is, whatever runs it: uint8 images in, logits and probabilities out, and what it says of itself.

N images, C channels, H height, W width; K classes.
"""

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from odn.data.dataset import Images
from odn.records import Record

INPUT, OUTPUTS = "images", ("logits", "probabilities")
MOST_AT_ONCE = 64  # images in one pass: what a pass holds in memory stays bounded, however many are asked for

Floats = npt.NDArray[np.float32]
Side = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True, kw_only=True)
class ImageShape(Record):
    """Say what the images of a model are like."""

    channels: Side
    height: Side
    width: Side

    @property
    def axes(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return (
            f"{self.width}x{self.height} {'grey' if self.channels == 1 else 'color' if self.channels == 3 else f'{self.channels}-channel'}"
        )


@dataclass(frozen=True, kw_only=True)
class About:
    """Hold what a model says of itself."""

    classes: tuple[str, ...]  # K names
    image: ImageShape
    sha256: str  # of the file that it was read from
    platform: str  # what runs it, as the Open Inference Protocol names it


@dataclass(frozen=True)
class Answers:
    """Hold what a model says of N images."""

    logits: Floats  # (N, K)
    probabilities: Floats  # (N, K)


class Model(Protocol):
    """Be a finished model; threads may ask it at the same time."""

    @property
    def about(self) -> About:
        """Return what it says of itself."""

    def answer_pass(self, images: Images) -> Answers:
        """Run one pass over at most MOST_AT_ONCE images (N, C, H, W)."""


def answer(model: Model, images: Images) -> Answers:
    """Return logits and probabilities of images (N, C, H, W), in passes that memory holds.

    Raises:
        ValueError: the images are not of the model's shape, or there is none.
    """
    wanted = model.about.image.axes
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        raise ValueError(f"expected uint8 images (N, {', '.join(map(str, wanted))}), one at least; got {images.dtype} {images.shape}")
    passes = [model.answer_pass(images[start : start + MOST_AT_ONCE]) for start in range(0, len(images), MOST_AT_ONCE)]
    if len(passes) == 1:
        return passes[0]
    return Answers(np.concatenate([one.logits for one in passes]), np.concatenate([one.probabilities for one in passes]))
