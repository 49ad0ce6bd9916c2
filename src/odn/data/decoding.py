"""Decode one image file to uint8 pixels: upright, plain, and where a size is asked for cut to the middle square and resized.

C channels, H height, W width. What opens images in several threads does so inside `odd_images_raise`.
"""

import io
import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from odn.data.checksums import MEND
from odn.errors import DataError

# What each mode of Pillow's becomes. The others (16-bit grey, float, CMYK, Lab …) would lose by a conversion that nobody asked for.
CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "P": 3, "PA": 3, "RGBA": 3}
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of Pillow's, those whose decoders start no other program
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow raises of damaged files: its own errors, and what its readers stumble over.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, struct.error)
# A JPEG is decoded at a half, a quarter or an eighth of its size where that leaves so many times the size that is asked for: several times
# faster for a camera's photographs, and the resize that follows does most of the averaging all the same.
REDUCED_TO = 2

_standard_error = threading.Lock()  # held while it points nowhere

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it would log of a damaged file it raises as well


@dataclass(frozen=True, kw_only=True, slots=True)  # there is one for each image of a data set
class Header:
    """Hold what an image's header says: how it will be seen, without decoding it."""

    channels: int
    height: int
    width: int


@contextmanager
def odd_images_raise() -> Iterator[None]:
    """Let Pillow raise what it would warn of, but for odd metadata: the pixels decode or raise. Warnings have no filter a thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def check_header(path: Path, *, shown_as: str, content: bytes | None = None) -> None:
    """Require that a file, or `content`, begins as an image does.

    Raises:
        DataError: it does not; it is named as the user knows it.
    """
    with _opened(path, shown_as=shown_as, content=content):
        pass


def read_header(path: Path, *, content: bytes | None = None) -> Header:
    """Read the header of an image: of the file, or of `content`, which then only bears the name.

    Raises:
        DataError: the file is no image, or one that has no plain 8-bit form.
    """
    with _opened(path, content=content) as image:
        width, height = image.size
        # Only where a header holds Exif: looking for it elsewhere would decode the whole image.
        if "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS:
            width, height = height, width
        return Header(channels=_channels(image, path=path), height=height, width=width)


def decode(path: Path, *, channels: int, image_size: int | None, content: bytes | None = None) -> npt.NDArray[np.uint8]:
    """Decode an image to (C, H, W), upright; grey becomes three equal channels where three are asked for.

    With `image_size` the middle square, as wide as the short side, is resized to so many pixels a side, bilinear and antialiased. With
    `content` no file is read, and `path` is but the name that an error shows.

    Raises:
        DataError: the file is truncated or corrupt, or holds transparent pixels.
    """
    with _opened(path, content=content) as image, _unheard(image):
        if image_size is not None and image.format in ("JPEG", "MPO"):
            image.draft(image.mode, (REDUCED_TO * image_size, REDUCED_TO * image_size))
        upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
        _channels(image, path=path)
        if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
            lowest, _ = upright.convert("RGBA").getchannel("A").getextrema()
            if lowest != 255:
                raise DataError(f"{path} has transparent pixels; flatten it on the background that you mean")
        plain = upright.convert("L" if channels == 1 else "RGB")
        if image_size is not None and plain.size != (image_size, image_size):
            plain = plain.resize((image_size, image_size), Image.Resampling.BILINEAR, box=_middle_square(*plain.size))
        pixels = np.asarray(plain)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _middle_square(width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, upper, right and lower of the largest square in the middle, to half a pixel."""
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def _channels(image: Image.Image, *, path: Path) -> int:
    if image.mode not in CHANNELS:
        raise DataError(f"{path} has mode {image.mode}, which has no plain 8-bit form; convert it to 8-bit grey or RGB")
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":  # MPO: a camera's photo with its preview
        raise DataError(f"{path} has {n_frames} frames; keep one of them as a still image")
    return CHANNELS[image.mode]


@contextmanager
def _opened(path: Path, *, shown_as: str | None = None, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open one image to look at; whatever Pillow raises meanwhile becomes a DataError that names the file."""
    shown, mend = shown_as or str(path), "" if shown_as or content is not None else f" under data.root, then {MEND}"
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        what = (
            "is empty (0 bytes)"
            if (path.stat().st_size if content is None else len(content)) == 0
            else f"is not an image in one of the formats {', '.join(FORMATS)}"
        )
        raise DataError(f"{shown} {what}; replace or remove it{mend}") from None
    except TOO_LARGE as error:
        found = re.search("[0-9]+", str(error))
        n_pixels = f"{int(found[0]):,}" if found else "too many"
        raise DataError(
            f"{shown} has {n_pixels} pixels, and at most {Image.MAX_IMAGE_PIXELS:,} are decoded, lest one image fill the memory; "
            f"make it smaller or remove it{mend}"
        ) from None
    except UNREADABLE as error:
        raise DataError(f"{shown} cannot be decoded ({error}): it is truncated or corrupt; replace or remove it{mend}") from None


@contextmanager
def _unheard(image: Image.Image) -> Iterator[None]:
    """Keep back what libtiff, of all decoders, writes to standard error by itself; what is wrong Pillow raises as well."""
    if image.format != "TIFF":
        yield
        return
    with _standard_error:  # one at a time: the descriptor is the whole process's
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
