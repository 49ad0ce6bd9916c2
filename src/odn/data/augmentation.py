"""Change training images at random, a batch at a time on the device: where each pixel comes from, its color, and what it is mixed with.

All draws of an epoch are made at once, before its first batch: one an image. What is switched off draws nothing, so that a setting that
is added later leaves the bytes of older ones as they are. n images of N, C channels, H height, W width; K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from odn.data.recolor import TrivialDraws, draw_trivial, jittered, trivially_recolored
from odn.sections import AugmentConfig

ASPECT = 4 / 3  # of a random crop, at most, and of its inverse

Size = tuple[int, int]  # (H, W)
Part = slice | Tensor  # some of an epoch's images, in the order in which they are shown: a slice, or indices (n,)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Hold what an epoch draws for its N images, in the order in which they are shown; None where nothing is to be changed."""

    maps: Tensor | None  # (N, 2, 3), from output to input coordinates in [-1, 1]; on the device
    jitter: Tensor | None  # (N, 3) factors of brightness, contrast and saturation; on the device
    trivial: TrivialDraws | None
    mixing: "Mixing | None"


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Say how much each image keeps of itself, and where it shows the next one of its batch instead; on the device."""

    kept: Tensor  # (N,) fraction; of the labels too
    boxes: Tensor  # (N, 4) top, bottom, left, right of the pixels that are the other's, where `cuts`
    cuts: Tensor  # (N,) bool: a box of the other, else both are blended


def draw_changes(n: int, *, size: Size, augment: AugmentConfig, generator: torch.Generator, device: torch.device) -> Changes:
    """Draw what an epoch changes of n images."""
    maps = _affine_maps(n, size=size, augment=augment, generator=generator)
    if augment.crop:
        maps = _composed(_crop_maps(n, size=size, least=augment.crop, generator=generator), maps)
    jitter = 1 + (2 * torch.rand(n, 3, generator=generator) - 1) * augment.jitter if augment.jitter else None
    trivial = draw_trivial(n, size=size, generator=generator) if augment.trivial else None
    if trivial is not None:
        maps = _composed(maps, trivial.maps)
    mixing = _draw_mixing(n, size=size, augment=augment, generator=generator) if augment.mixup or augment.cutmix else None
    return Changes(
        maps=maps.to(device) if maps is not None else None,
        jitter=jitter.to(device) if jitter is not None else None,
        trivial=trivial,
        mixing=Mixing(**{name: value.to(device) for name, value in vars(mixing).items()}) if mixing is not None else None,
    )


def changed(batch: Tensor, changes: Changes, part: Part) -> Tensor:
    """Return images (n, C, H, W) of pixel values 0..255, those of the epoch's `part`, moved and recolored."""
    if changes.maps is not None:
        batch = _moved(batch, changes.maps[part])
    if changes.jitter is not None:
        batch = jittered(batch, changes.jitter[part])
    if changes.trivial is not None:
        batch = trivially_recolored(batch, changes.trivial, part)
    return batch


def mixed(batch: Tensor, labels: Tensor, mixing: Mixing, part: Part, *, n_classes: int) -> tuple[Tensor, Tensor]:
    """Mix each image with the next one of its batch: (n, C, H, W) and (n,) labels -> the same and (n, K) label probabilities.

    Source: mixup, Zhang et al., arXiv 1710.09412; CutMix, Yun et al., arXiv 1905.04899.
    """
    kept, boxes, cuts = mixing.kept[part], mixing.boxes[part], mixing.cuts[part]
    other = batch.roll(-1, 0)
    height, width = batch.shape[2:]
    y, x = torch.arange(height, device=batch.device).view(1, -1, 1), torch.arange(width, device=batch.device).view(1, 1, -1)
    top, bottom, left, right = (boxes[:, side].view(-1, 1, 1) for side in range(4))
    is_box = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    weight = torch.where(cuts.view(-1, 1, 1), 1 - is_box.float(), kept.view(-1, 1, 1)).unsqueeze(1)  # (n, 1, H, W)
    probabilities = F.one_hot(labels, n_classes).float()
    share = kept.view(-1, 1)
    return torch.lerp(other, batch, weight), share * probabilities + (1 - share) * probabilities.roll(-1, 0)


def _affine_maps(n: int, *, size: Size, augment: AugmentConfig, generator: torch.Generator) -> Tensor | None:
    """Draw (n, 2, 3) maps from output to input coordinates in [-1, 1]; None where nothing is to be changed."""
    if not (augment.shift or augment.rotate or augment.scale or augment.flip):
        return None
    height, width = size
    draws = torch.rand(n, 5, generator=generator)
    angle = (2 * draws[:, 0] - 1) * math.radians(augment.rotate)
    zoom = 1 + (2 * draws[:, 1] - 1) * augment.scale
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if augment.flip else torch.ones(n)
    whole_pixels = torch.floor(draws[:, 2:4] * (2 * augment.shift + 1)) - augment.shift  # -shift … shift
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [
        torch.stack([cos * mirror, -sin * height / width, 2 * whole_pixels[:, 0] / width], 1),
        torch.stack([sin * mirror * width / height, cos, 2 * whole_pixels[:, 1] / height], 1),
    ]
    return torch.stack(rows, 1)


def _crop_maps(n: int, *, size: Size, least: float, generator: torch.Generator) -> Tensor:
    """Draw (n, 2, 3) maps onto a box of at least that fraction of the area, somewhere in the image, which fills it afterwards.

    Source: Szegedy et al., arXiv 1409.4842, section 6; a side that would be longer than the image is cut off.
    """
    height, width = size
    draws = torch.rand(n, 4, generator=generator)
    area = (least + (1 - least) * draws[:, 0]) * height * width
    aspect = torch.exp((2 * draws[:, 1] - 1) * math.log(ASPECT))
    wide = (torch.sqrt(area * aspect) / width).clamp(max=1)
    high = (torch.sqrt(area / aspect) / height).clamp(max=1)
    nothing = torch.zeros(n)
    rows = [
        torch.stack([wide, nothing, (1 - wide) * (2 * draws[:, 2] - 1)], 1),
        torch.stack([nothing, high, (1 - high) * (2 * draws[:, 3] - 1)], 1),
    ]
    return torch.stack(rows, 1)


def _composed(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return the maps (n, 2, 3) that change an image as `first` does, and what comes of it as `second` does."""
    if first is None or second is None:
        return second if first is None else first
    last_row = torch.tensor([0.0, 0.0, 1.0]).expand(len(second), 1, 3)
    return first @ torch.cat([second, last_row], 1)


def _moved(batch: Tensor, maps: Tensor) -> Tensor:
    """Take each pixel from where its image's own map says; what comes in from outside is black."""
    grid = F.affine_grid(maps, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _draw_mixing(n: int, *, size: Size, augment: AugmentConfig, generator: torch.Generator) -> Mixing:
    """Draw how n images are mixed; with both kinds each image has the one or the other, as often."""
    height, width = size
    draws = torch.rand(n, 3, generator=generator)
    cuts = torch.full((n,), bool(augment.cutmix)) if not (augment.mixup and augment.cutmix) else draws[:, 0] < 0.5
    # torch's Beta distribution draws from the global generator.
    rng = np.random.Generator(np.random.PCG64(int(torch.randint(2**62, (), generator=generator))))
    blended, cut = (
        torch.from_numpy(rng.beta(alpha, alpha, n)).float() if alpha else torch.ones(n) for alpha in (augment.mixup, augment.cutmix)
    )
    side = torch.sqrt(1 - cut)  # of the box, as a fraction of the image's; what lies outside of the image is lost
    sides: list[Tensor] = []
    for at, length in ((draws[:, 1], height), (draws[:, 2], width)):
        middle = at * length
        sides += [(middle - side * length / 2).round().clamp(0, length), (middle + side * length / 2).round().clamp(0, length)]
    boxes = torch.stack(sides, 1)
    outside = 1 - (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
    return Mixing(kept=torch.where(cuts, outside, blended), boxes=boxes, cuts=cuts)
