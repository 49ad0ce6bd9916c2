"""Find the test images that the model gets wrong, and make small pictures of them."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Split
from odn.errors import MissingInputError
from odn.records import damaged, read_table
from odn.searching.certified import PredictionRow

MOST = 24  # images shown
LONGEST_SIDE = 96  # pixels of a picture in the page
SMALL_SIDE = 48  # pixels up to which an image is shown pixel by pixel


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Hold one wrong answer."""

    index: int  # in test
    label: str
    predicted: str
    confidence: float
    pixels: npt.NDArray[np.uint8]  # (H, W) or (H, W, 3)

    def png(self) -> bytes:
        """Return the image as a small PNG."""
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(self.pixels))
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        file = io.BytesIO()
        image.save(file, format="PNG", optimize=True)
        return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Hold what the model gets wrong: how much, the surest of it, and the pairs of classes that it mixes up most."""

    n_wrong: int
    shown: tuple[Mistake, ...]
    confusions: tuple[tuple[str, str, int], ...]  # true, predicted, how often; those that happen more than once


def read_mistakes(predictions: Path, *, test: Split, classes: Sequence[str]) -> Mistakes:
    """Read the predictions and look up the images that are wrong, the surest first.

    Raises:
        MissingInputError: there are no predictions, or they are of other images than these.
        DataError: the table is damaged.
    """
    rows = read_table(PredictionRow, predictions, made_by="evaluate")
    if [row.index for row in rows] != list(range(len(rows))) or any(row.predicted >= len(classes) for row in rows):
        why = f"it must number the images from 0, and each answer be one of {len(classes)} classes"
        raise damaged(predictions, why, made_by="evaluate")
    if [row.label for row in rows] != test.labels.tolist():
        raise MissingInputError(f"{predictions} is of other images than the test split; run 'dvc repro evaluate' first")
    wrong = sorted((row for row in rows if row.label != row.predicted), key=lambda row: (-row.confidence, row.index))
    pairs = Counter((row.label, row.predicted) for row in wrong)
    often = sorted((pair for pair in pairs.items() if pair[1] > 1), key=lambda pair: (-pair[1], pair[0]))
    return Mistakes(
        n_wrong=len(wrong),
        shown=tuple(_mistake(row, test=test, classes=classes) for row in wrong[:MOST]),
        confusions=tuple((classes[true], classes[predicted], count) for (true, predicted), count in often[:5]),
    )


def _mistake(row: PredictionRow, *, test: Split, classes: Sequence[str]) -> Mistake:
    image = np.asarray(test.images[row.index])  # (C, H, W)
    return Mistake(
        index=row.index,
        label=classes[row.label],
        predicted=classes[row.predicted],
        confidence=row.confidence,
        pixels=image[0] if len(image) == 1 else image.transpose(1, 2, 0),
    )
