"""Predict the classes of image files; the command `odn predict`.

Reads: images, and a model: an ONNX file, a folder, or a version in MLflow's registry
Writes: nothing
Config: none

With an ONNX file no torch is imported.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odn.cores import usable_cores
from odn.data.dataset import Images
from odn.data.single_image import decode_image, is_image
from odn.errors import DataError, MissingInputError
from odn.serving.model import MOST_AT_ONCE, ImageShape, answer
from odn.serving.sources import Loaded, find_source

STDIN = "-"
SHOWN = 3  # classes of an image in a table


@dataclass(frozen=True)
class Given:
    """Name an image, and hold its bytes where they came with standard input."""

    name: str
    content: bytes | None = None

    def read(self, image: ImageShape) -> Images:
        """Decode it to (C, H, W).

        Raises:
            DataError: it cannot be read, or is no image that the model takes.
        """
        try:
            content = Path(self.name).read_bytes() if self.content is None else self.content
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}") from None
        return decode_image(content, shown=self.name, shape=image.axes)


@dataclass(frozen=True)
class Prediction:
    """Hold what a model says of one image: the classes, the most probable first."""

    image: str
    classes: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, object]:
        """Return a line of `--format json`."""
        best, probability = self.classes[0]
        return {"image": self.image, "class": best, "probability": probability, "probabilities": dict(self.classes)}

    def to_row(self, *, width: int) -> str:
        """Return a line of a table whose first column is so wide."""
        widest = max(len(name) for name, _ in self.classes)
        cells = (f"{name:<{widest}} {probability:>7.2%}" for name, probability in self.classes[:SHOWN])
        return f"{self.image:<{width}}  {'  '.join(cells)}"


def run(given: Sequence[Given], *, model: str | None) -> Iterator[Prediction | DataError]:
    """Yield the prediction of each image, or why it cannot be read, in order.

    Raises:
        OdnError: there is no such model.
    """
    loaded = find_source(model).load(threads=usable_cores())
    for start in range(0, len(given), MOST_AT_ONCE):
        yield from _predict(given[start : start + MOST_AT_ONCE], loaded)


def find_images(names: Sequence[str]) -> Iterator[Given]:
    """Yield the images that arguments name: files, the files below folders, and what comes with standard input.

    Raises:
        MissingInputError: a folder or standard input is empty.
    """
    for name in names:
        if name == STDIN:
            yield from _from_stdin(sys.stdin.buffer.read())
        elif Path(name).is_dir():
            below = sorted(_below(name))
            if not below:
                raise MissingInputError(f"there is no file in {name}; name images, or a folder of images")
            yield from map(Given, below)
        else:
            yield Given(name)


def _below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (str(Path(place, name)) for name in files if not name.startswith("."))


def _from_stdin(content: bytes) -> Iterator[Given]:
    """Yield the one image that standard input holds, or the images whose paths it lists, one a line."""
    if is_image(content):
        yield Given(STDIN, content)
        return
    paths = [line for line in os.fsdecode(content).splitlines() if line.strip()]
    if not paths or "\0" in paths[0]:
        raise MissingInputError("standard input holds neither an image nor a list of paths, one a line")
    yield from map(Given, paths)


def _predict(given: Sequence[Given], loaded: Loaded) -> Iterator[Prediction | DataError]:
    about = loaded.model.about
    decoded = [_read(one, about.image) for one in given]
    readable = [one for one in decoded if not isinstance(one, DataError)]
    probabilities: Iterator[list[float]] = iter(answer(loaded.model, np.stack(readable)).probabilities.tolist() if readable else ())
    for one, pixels in zip(given, decoded, strict=True):
        if isinstance(pixels, DataError):
            yield pixels
            continue
        of_each = zip(about.classes, next(probabilities), strict=True)
        yield Prediction(one.name, tuple(sorted(of_each, key=lambda pair: -pair[1])))


def _read(one: Given, image: ImageShape) -> Images | DataError:
    try:
        return one.read(image)
    except DataError as error:
        return error
