"""Images out of what a request holds: nested numbers, flat ones, raw bytes, or encoded image files; whatever is not one is refused.

N images, C channels, H height, W width.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from odn.data.dataset import Images
from odn.data.single_image import decode_image
from odn.errors import DataError, RequestError
from odn.serving.model import ImageShape

MOST_IMAGES = 1024  # a request: one that holds more would keep others waiting for seconds
TOO_MUCH = 413


def require_count(n: int) -> None:
    """Require one image at least, and not more than a request may hold.

    Raises:
        RequestError: there are fewer or more.
    """
    if n < 1:
        raise RequestError("there is no image in the request; send one at least")
    if n > MOST_IMAGES:
        raise RequestError(f"{n:,} images are too many for one request; send at most {MOST_IMAGES:,} at a time", status=TOO_MUCH)


def from_numbers(values: Any, *, image: ImageShape, flat: bool = False) -> Images:
    """Return images of nested lists (N, C, H, W) of pixel values, or with `flat` of a flat list each, (N, C * H * W).

    Raises:
        RequestError: they are not of the model's shape, or not whole numbers from 0 to 255.
    """
    wanted = f"(N, {', '.join(map(str, image.axes))})" + (f", or (N, {np.prod(image.axes)}) flat" if flat else "")
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise RequestError(f"expected pixel values of shape {wanted}; got lists of unequal lengths") from None
    if array.dtype.kind not in "iuf":
        raise RequestError(f"expected pixel values of shape {wanted}, whole numbers from 0 to 255; got {_kind(array)}")
    if array.ndim == 0:
        raise RequestError(f"expected pixel values of shape {wanted}; got a single number")
    require_count(len(array))
    if flat and array.shape == (len(array), np.prod(image.axes)):
        array = array.reshape(len(array), *image.axes)
    if array.shape[1:] != image.axes:
        raise RequestError(f"expected pixel values of shape {wanted}; got {_shown(array.shape)}")
    return _pixels(array)


def from_tensor(values: Any, *, shape: Sequence[int], image: ImageShape) -> Images:
    """Return images of a tensor's data, flat or nested, whose shape is said beside it.

    Raises:
        RequestError: the shape is not the model's, the data is not of that shape, or not whole numbers from 0 to 255.
    """
    _require_shape(shape, image=image)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise RequestError("data of the input: got lists of unequal lengths") from None
    if array.dtype.kind not in "iuf":
        raise RequestError(f"data of the input: expected whole numbers from 0 to 255; got {_kind(array)}")
    if array.ndim != 1 and array.shape != tuple(shape):
        raise RequestError(f"data of the input: got {_shown(array.shape)}, and its shape is said to be {_shown(shape)}")
    if array.size != np.prod(shape):
        raise RequestError(f"data of the input: got {array.size:,} numbers, and its shape {_shown(shape)} holds {np.prod(shape):,}")
    return _pixels(array.reshape(tuple(shape)))


def from_raw(content: bytes, *, shape: Sequence[int], image: ImageShape) -> Images:
    """Return images of raw bytes, row-major, a byte a pixel and channel.

    Raises:
        RequestError: the shape is not the model's, or there are fewer or more bytes.
    """
    _require_shape(shape, image=image)
    if len(content) != np.prod(shape):
        raise RequestError(f"binary data of the input: got {len(content):,} bytes, and its shape {_shown(shape)} holds {np.prod(shape):,}")
    return np.frombuffer(content, np.uint8).reshape(tuple(shape))


def from_files(files: Sequence[bytes], *, image: ImageShape) -> Images:
    """Return images of encoded image files.

    Raises:
        RequestError: one cannot be decoded.
    """
    require_count(len(files))
    try:
        decoded = [decode_image(content, shown=f"image {number}", shape=image.axes) for number, content in enumerate(files)]
    except DataError as error:
        raise RequestError(str(error)) from None
    return np.stack(decoded)


def from_base64(texts: Sequence[Any], *, image: ImageShape) -> Images:
    """Return images of encoded image files as base64 text.

    Raises:
        RequestError: a text is no base64, or what it stands for cannot be decoded.
    """
    require_count(len(texts))
    files = []
    for number, text in enumerate(texts):
        try:
            files.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise RequestError(f"image {number}: expected an image file as base64 text") from None
    return from_files(files, image=image)


def _require_shape(shape: Sequence[int], *, image: ImageShape) -> None:
    if len(shape) != 4 or tuple(shape[1:]) != image.axes:
        raise RequestError(f"shape of the input: expected [N, {', '.join(map(str, image.axes))}]; got {_shown(shape)}")
    require_count(shape[0])


def _pixels(array: Any) -> Images:
    with np.errstate(invalid="ignore"):  # NaN is no whole number, and is refused below
        pixels: Images = array.astype(np.uint8)
    if not np.array_equal(pixels, array):
        strange = array[pixels != array].flat[0]
        raise RequestError(f"expected pixel values that are whole numbers from 0 to 255; got {strange}")
    return pixels


def _shown(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _kind(array: Any) -> str:
    return {"b": "true and false", "U": "text", "O": "a mixture, or numbers without end"}.get(array.dtype.kind, str(array.dtype))
