"""Read images from class folders: ROOT/CLASS/IMAGE, in any of FORMATS, one decoded at a time.

N images, C channels, H height, W width. Files and folders whose names start with a dot are not looked at; everything else counts,
so that nothing is skipped silently.
"""

import logging
import os
import re
import shutil
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from odn.data.checksums import MEND, require_name
from odn.data.checksums import NAME as CHECKSUMS
from odn.data.dataset import Images
from odn.data.sources import Part, Raw
from odn.data.splits import Indices
from odn.errors import DataError

# What each mode of Pillow's becomes. The others (16-bit grey, float, CMYK, Lab …) would lose by a conversion that nobody asked for.
CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "P": 3, "PA": 3, "RGBA": 3}
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of Pillow's, those whose decoders start no other program
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow raises of damaged files: its own errors, and what its readers stumble over.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, struct.error)


logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it would log of a damaged file it raises as well


def copy_class_folders(root: Path, *, into: Path) -> None:
    """Copy the class folders and their images, after a look at each image's header.

    Raises:
        DataError: there is no such folder, it holds no class folders, a class is empty, or a file is not an image.
    """
    if not root.is_dir():
        found = "is a file" if root.is_file() else "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"data.root: {root} {found}; name a folder that holds one folder of images a class")
    for name, paths in check_class_folders(root, shown_as=str(root)).items():
        (into / name).mkdir()
        for path in paths:
            shutil.copyfile(path, into / name / path.name)


def check_class_folders(root: Path, *, shown_as: str) -> dict[str, list[Path]]:
    """Require two class folders at least, an image at least in each, and nothing but images; return the files of each class.

    Only the images' headers are read.

    Raises:
        DataError: naming the folder or the file as it is below `shown_as`, the place that the user knows.
    """
    files = _class_files(root, shown_as=shown_as)
    for name, paths in files.items():
        for path in paths:
            with _opened(path, shown_as=f"{shown_as}/{name}/{path.name}"):
                pass  # the header is enough here; decoding comes with `prepare`
    return files


def open_folder(folder: Path, *, image_size: int | None) -> Raw:
    """Open class folders; the classes are the folders' names in order, and an image is decoded when it is read.

    Raises:
        DataError: as `check_class_folders`, or images of different sizes (unless they are resized) or of grey and color.
    """
    files = _class_files(folder, shown_as=str(folder))
    paths = [path for of_class in files.values() for path in of_class]
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(of_class) for of_class in files.values()])
    channels, height, width = _common_shape(paths, image_size=image_size)

    def read(indices: Indices) -> Images:
        images = np.empty((len(indices), channels, height, width), np.uint8)
        for position, index in enumerate(indices):
            with _opened(paths[index]) as image, _unheard(image):
                pixels = _pixels(image, path=paths[index], image_size=image_size)
            images[position] = pixels.reshape(height, width, channels).transpose(2, 0, 1)
        return images

    part = Part(labels=labels, read=read, name=lambda index: f"{paths[index].parent.name}/{paths[index].name}")
    return Raw(classes=tuple(files), channels=channels, height=height, width=width, train=part, test=None)


def _class_files(root: Path, *, shown_as: str) -> dict[str, list[Path]]:
    """Return the files of each class in order, or the DataError that names what is out of place."""
    for folder in (path for path in _visible(root) if path.is_dir()):
        require_name(folder.name, shown_as=f"{shown_as}/{folder.name}")
    for stray in (path for path in _visible(root) if not path.is_dir() and path.name != CHECKSUMS):
        raise DataError(f"{shown_as}/{stray.name} lies beside the class folders; move it into one of them, or out of {shown_as}")
    files = {folder.name: _visible(folder) for folder in _visible(root) if folder.is_dir()}
    if len(files) < 2:
        found = "no class folders" if not files else "one class folder"
        raise DataError(f"{shown_as} holds {found}; expected one folder a class, two at least")
    for name, paths in files.items():
        if not paths:
            raise DataError(f"{shown_as}/{name}: the class folder is empty; add images to it or remove it")
        for path in paths:
            require_name(path.name, shown_as=f"{shown_as}/{name}/{path.name}")
            if path.is_dir():
                shown = f"{shown_as}/{name}/{path.name}"
                raise DataError(f"{shown} is a folder; a class folder holds images only: move them up or give them a class of their own")
            if not path.is_file():
                raise DataError(f"{shown_as}/{name}/{path.name} is not a regular file, or a link to nothing; remove it")
    return files


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


@contextmanager
def _opened(path: Path, *, shown_as: str | None = None) -> Iterator[Image.Image]:
    """Open one image to look at; whatever Pillow raises meanwhile becomes a DataError that names the file."""
    shown, mend = (shown_as, "") if shown_as else (str(path), f" under data.root, then {MEND}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # odd metadata; the pixels decode or raise
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise DataError(f"{shown} is not an image in one of the formats {', '.join(FORMATS)}; replace or remove it{mend}") from None
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
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) as a viewer shows it, from the header."""
    width, height = image.size
    # Only where a header holds Exif: looking for it elsewhere would decode the whole image.
    sideways = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    return (width, height) if sideways else (height, width)


def _common_shape(paths: list[Path], *, image_size: int | None) -> tuple[int, int, int]:
    """Return the (C, H, W) that all images have, or the DataError that names two that differ."""
    channels, height, width = 0, 0, 0
    for path in paths:
        with _opened(path) as image:
            found, size = _channels(image, path=path), _size(image)
        if path is paths[0]:
            channels, (height, width) = found, size
        if found != channels:
            kinds = {1: "grey", 3: "color"}
            raise DataError(f"{path} is {kinds[found]} but {paths[0]} is {kinds[channels]}; convert them all to one of the two")
        if image_size is None and size != (height, width):
            raise DataError(
                f"{path} is {size[1]}x{size[0]} pixels but {paths[0]} is {width}x{height}; "
                "set data.image_size to resize them all, or make them one size"
            )
    return (channels, height, width) if image_size is None else (channels, image_size, image_size)


def _channels(image: Image.Image, *, path: Path) -> int:
    if image.mode not in CHANNELS:
        raise DataError(f"{path} has mode {image.mode}, which has no plain 8-bit form; convert it to 8-bit grey or RGB")
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":  # MPO: a camera's photo with its preview
        raise DataError(f"{path} has {n_frames} frames; keep one of them as a still image")
    return CHANNELS[image.mode]


def _pixels(image: Image.Image, *, path: Path, image_size: int | None) -> Images:
    """Decode to uint8 (H, W) or (H, W, 3), upright and resized."""
    upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
    channels = _channels(image, path=path)
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        lowest, _ = upright.convert("RGBA").getchannel("A").getextrema()
        if lowest != 255:
            raise DataError(f"{path} has transparent pixels; flatten it on the background that you mean")
    plain = upright.convert("L" if channels == 1 else "RGB")
    if image_size is not None and plain.size != (image_size, image_size):
        plain = plain.resize((image_size, image_size), Image.Resampling.BILINEAR)  # Pillow's is antialiased
    return np.asarray(plain)
