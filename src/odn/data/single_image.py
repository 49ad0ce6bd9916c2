"""Decode one image as `prepare` decodes those of a class folder, from its bytes, to the shape that a model takes.

C channels, H height, W width. No torch.
"""

import threading
from pathlib import Path

import numpy as np

from odn.data.dataset import Images
from odn.data.decoding import check_header, decode, odd_images_raise, read_header
from odn.errors import DataError

_one_at_a_time = threading.Lock()  # the filters of warnings are the whole process's


def decode_image(content: bytes, *, shown: str, shape: tuple[int, int, int]) -> Images:
    """Return the pixels (C, H, W) of an image file, upright and resized.

    Grey becomes three equal channels where the model takes color; color becomes grey only where its channels are equal.

    Raises:
        DataError: it is no image, it is damaged, or it would lose by a conversion that nobody asked for.
    """
    (channels, height, width), name = shape, Path(shown)
    with _one_at_a_time, odd_images_raise():
        found = read_header(name, content=content)
        image_size = width if width == height else None
        pixels = decode(name, channels=max(channels, found.channels), image_size=image_size, content=content)
    if pixels.shape[1:] != (height, width):
        raise DataError(
            f"{shown} is {pixels.shape[2]}x{pixels.shape[1]}; images are resized to squares, and this model takes {width}x{height}"
        )
    if len(pixels) == channels:
        return np.ascontiguousarray(pixels)
    if channels == 1 and (pixels == pixels[:1]).all():
        return np.ascontiguousarray(pixels[:1])
    raise DataError(f"{shown} is color, and the model takes {'grey' if channels == 1 else f'{channels} channels'}; convert it")


def is_image(content: bytes) -> bool:
    """Tell whether bytes begin as an image file does."""
    try:
        with _one_at_a_time, odd_images_raise():
            check_header(Path(), shown_as="the content", content=content)
    except DataError:
        return False
    return True
