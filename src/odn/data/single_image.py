"""Decode one image as `prepare` decodes those of a class folder, from its bytes, to the shape that a model takes.

C channels, H height, W width. No torch.
"""

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np

from odn.data.dataset import Images
from odn.data.folder import _opened, _pixels, _unheard
from odn.errors import DataError

_one_at_a_time = threading.Lock()  # the filters of warnings, and standard error, are the whole process's


def decode_image(content: bytes, *, shown: str, shape: tuple[int, int, int]) -> Images:
    """Return the pixels (C, H, W) of an image file, upright and resized.

    Grey becomes three equal channels where the model takes color; color becomes grey only where its channels are equal.

    Raises:
        DataError: it is no image, it is damaged, or it would lose by a conversion that nobody asked for.
    """
    channels, height, width = shape
    file: Any = io.BytesIO(content)
    with _one_at_a_time, _opened(file, shown_as=shown) as image, _unheard(image):
        pixels = _pixels(image, path=Path(shown), image_size=width)
    if width != height:
        raise DataError(f"{shown}: images are resized to squares, and this model takes {width}x{height}")
    planes = pixels.reshape(height, width, -1).transpose(2, 0, 1)
    if len(planes) == channels:
        return np.ascontiguousarray(planes)
    if len(planes) == 1:
        return np.repeat(planes, channels, axis=0)
    if channels == 1 and (planes == planes[:1]).all():
        return np.ascontiguousarray(planes[:1])
    kinds = {1: "grey", 3: "color"}
    raise DataError(f"{shown} is {kinds[len(planes)]}, and the model takes {kinds.get(channels, f'{channels} channels')}; convert it")


def is_image(content: bytes) -> bool:
    """Tell whether bytes begin as an image file does."""
    file: Any = io.BytesIO(content)
    try:
        with _one_at_a_time, _opened(file, shown_as="the content"):
            return True
    except DataError:
        return False
