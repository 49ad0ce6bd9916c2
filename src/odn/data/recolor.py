"""Change the color of training images at random, each by its own draw, through Kornia, which takes a factor an image.

Kornia is imported when it is needed, a second and a half after torch. What it does not do in torch's deterministic mode on a GPU
(`equalize`, whose sums are of floats), or otherwise than Pillow (`autocontrast` of a flat channel), is written out here.
n images of N, C channels, H height, W width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 31  # of a magnitude, from nothing to the most
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLORS = ("brightness", "saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *GEOMETRIC, *COLORS)
MOST_SHEAR, MOST_PIXELS, MOST_DEGREES, MOST_FACTOR = 0.99, 32.0, 135.0, 0.99

Recolored = Callable[[Tensor, Tensor], Tensor]  # values in [0, 1] (n, C, H, W), signed magnitudes in [-1, 1] (n,) -> values


@dataclass(frozen=True, kw_only=True)
class TrivialDraws:
    """Hold the one operation that each image has, and how strong it is; on the processor, where a batch is sorted by its operations."""

    operations: Tensor  # (N,) indices into OPERATIONS
    magnitudes: Tensor  # (N,) in [-1, 1]
    maps: Tensor  # (N, 2, 3), from output to input coordinates in [-1, 1]: what the geometric ones do


def jittered(batch: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, contrast and saturation of each image (n, C, H, W), 0..255, by its three factors (n, 3)."""
    from kornia.enhance import (
        adjust_brightness_accumulative,
        adjust_contrast_with_mean_subtraction,
        adjust_saturation_with_gray_subtraction,
    )

    values = adjust_brightness_accumulative(batch / 255, factors[:, 0])
    values = adjust_contrast_with_mean_subtraction(values, factors[:, 1])
    if values.shape[1] == 3:
        values = adjust_saturation_with_gray_subtraction(values, factors[:, 2])
    return values * 255


def draw_trivial(n: int, *, size: tuple[int, int], generator: torch.Generator) -> TrivialDraws:
    """Draw for each of n images of (H, W) one operation and its magnitude.

    Source: TrivialAugment (wide), Müller and Hutter, arXiv 2103.10158, section 3 and table 6.
    """
    operations = torch.randint(len(OPERATIONS), (n,), generator=generator)
    strength = torch.randint(BINS, (n,), generator=generator) / (BINS - 1)
    sign = 1.0 - 2.0 * torch.randint(2, (n,), generator=generator)
    magnitudes = sign * strength
    return TrivialDraws(operations=operations, magnitudes=magnitudes, maps=_geometric_maps(operations, magnitudes, size=size))


def trivially_recolored(batch: Tensor, draws: TrivialDraws, part: slice | Tensor) -> Tensor:
    """Do what was drawn of color to each image (n, C, H, W), 0..255, those of the epoch's `part`."""
    operations, magnitudes = draws.operations[part], draws.magnitudes[part]
    batch = batch.clone()
    for name in COLORS:
        if name == "saturation" and batch.shape[1] != 3:
            continue
        chosen = (operations == OPERATIONS.index(name)).nonzero()[:, 0]
        if len(chosen):
            there = chosen.to(batch.device)
            batch[there] = 255 * _recolor(name)(batch[there] / 255, magnitudes[chosen].to(batch.device))
    return batch


def _geometric_maps(operations: Tensor, magnitudes: Tensor, *, size: tuple[int, int]) -> Tensor:
    height, width = size

    def of(name: str, most: float) -> Tensor:
        return torch.where(operations == OPERATIONS.index(name), magnitudes * most, 0.0)

    angle, one = of("rotate", math.radians(MOST_DEGREES)), torch.ones(len(operations))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos * one, (of("shear_x", MOST_SHEAR) - sin) * height / width, of("translate_x", 2 * MOST_PIXELS / width)], 1),
        torch.stack([(of("shear_y", MOST_SHEAR) + sin) * width / height, cos * one, of("translate_y", 2 * MOST_PIXELS / height)], 1),
    ]
    return torch.stack(rows, 1)


def _recolor(name: str) -> Recolored:
    from kornia import enhance

    colored: dict[str, Recolored] = {
        "brightness": lambda values, m: enhance.adjust_brightness_accumulative(values, 1 + MOST_FACTOR * m),
        "saturation": lambda values, m: enhance.adjust_saturation_with_gray_subtraction(values, 1 + MOST_FACTOR * m),
        "contrast": lambda values, m: enhance.adjust_contrast_with_mean_subtraction(values, 1 + MOST_FACTOR * m),
        "sharpness": lambda values, m: enhance.sharpness(values, 1 + MOST_FACTOR * m),
        "posterize": lambda values, m: enhance.posterize(values, 8 - torch.round(6 * m.abs()).long()),
        "solarize": lambda values, m: enhance.solarize(values, 1 - m.abs()),
        "autocontrast": lambda values, _: autocontrast(values),
        "equalize": lambda values, _: equalized(values),
    }
    return colored[name]


def autocontrast(values: Tensor) -> Tensor:
    """Stretch each channel of (n, C, H, W) to [0, 1]; a flat one stays as it is. Source: Pillow's `ImageOps.autocontrast`."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    is_flat = high <= low
    return torch.where(is_flat, values, (values - low) / torch.where(is_flat, 1.0, high - low))


def equalized(values: Tensor) -> Tensor:
    """Give each channel of (n, C, H, W) an even histogram. Source: Pillow's `ImageOps.equalize`.

    In whole numbers, so that the sums are the same in any order, and in one dimension, where torch adds repeatably on a GPU.
    """
    n_channels = values.shape[0] * values.shape[1]
    levels = (values * 255).round().long().view(n_channels, -1)
    bins = levels + 256 * torch.arange(n_channels, device=values.device).view(-1, 1)
    counts = torch.zeros(256 * n_channels, dtype=torch.int64, device=values.device)
    counts = counts.scatter_add_(0, bins.flatten(), torch.ones_like(bins).flatten()).view(n_channels, 256)
    last = counts.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - last) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    even = torch.where(step > 0, table.gather(1, levels), levels)
    return (even.to(values.dtype) / 255).view_as(values)
