"""Bring one's own images to a search: arrays, torch data sets, or a folder, as uint8 arrays in memory, counted and compared.

N images, C channels, H height, W width; K classes.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from odn.config import settings
from odn.data.arrays import histogram_of, statistics
from odn.data.batches import Images, on_device
from odn.data.dataset import Manifest, Split
from odn.data.duplicates import Compared, digests_of, find_twins, told
from odn.data.folder import open_folder
from odn.data.selection import select
from odn.data.splits import check_labels
from odn.errors import DataError

Layout = Literal["first", "last"]
Pair = tuple[Any, Any]  # images and labels
FEW_CHANNELS = (1, 3, 4)  # by which an axis of channels is recognised


class Labelled(Protocol):
    """Be a data set as torch has it: `len`, and an image with its label at each index."""

    def __len__(self) -> int:
        """Count the images."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an image and its label."""


@dataclass(frozen=True)
class Data:
    """Hold the images of a search: train to fit, val to choose, test to certify once.

    Make one with `from_arrays`, `from_datasets` or `from_folder`. Images are kept as uint8 (N, C, H, W), and normalised a batch at a time
    by the mean and deviation of train.
    """

    manifest: Manifest
    splits: Mapping[str, Split]

    @property
    def train(self) -> Images:
        """Return what networks are fitted to."""
        return self._images("train")

    @property
    def val(self) -> Images:
        """Return what depths are chosen by."""
        return self._images("val")

    @property
    def test(self) -> Images:
        """Return what the model is certified on.

        Raises:
            ValueError: there is no test split.
        """
        return self._images("test")

    def _images(self, name: str) -> Images:
        if name not in self.splits:
            raise ValueError(f"there is no {name} split; give one when the data is made")
        return on_device(self.splits[name], manifest=self.manifest, device=torch.device("cpu"))

    @classmethod
    def from_arrays(
        cls,
        train: Pair,
        val: Pair,
        test: Pair | None = None,
        *,
        classes: Sequence[str] | None = None,
        channels: Layout | None = None,
    ) -> Self:
        """Take splits as pairs of images and labels: arrays, tensors or lists of them.

        Images are uint8, or floats from 0 to 1: (N, H, W), (N, C, H, W) or (N, H, W, C); `channels` says which of these where it cannot
        be seen. Labels are whole numbers from 0 to K - 1.

        Raises:
            DataError: images or labels are not that, or a class has no image in a split.
        """
        given = {"train": train, "val": val} | ({"test": test} if test is not None else {})
        splits = {name: _split(*pair, where=name, channels=channels) for name, pair in given.items()}
        return cls._of(splits, classes=classes, source="arrays")

    @classmethod
    def from_datasets(cls, train: Labelled, val: Labelled, test: Labelled | None = None, *, classes: Sequence[str] | None = None) -> Self:
        """Read torch data sets whose items are an image and its label.

        An image is a PIL image, a uint8 array or tensor, or a float one from 0 to 1, before any normalisation and augmentation: those are
        done by the training. Class names come from `classes`, or from the attribute `classes` of the training data set.

        Raises:
            DataError: an item is not that, images differ in size, or a class has no image in a split.
        """
        given = {"train": train, "val": val} | ({"test": test} if test is not None else {})
        splits = {name: _read(dataset, where=name) for name, dataset in given.items()}
        names = classes if classes is not None else getattr(train, "classes", None)
        return cls._of(splits, classes=names, source="datasets")

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        image_size: int | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> Self:
        """Read FOLDER/CLASS/IMAGE and split it, stratified; or FOLDER/train/CLASS/IMAGE beside val and test, where these are, as they are.

        `image_size` cuts the middle square, as wide as the short side, and resizes it to so many pixels a side.

        Raises:
            DataError: the folder holds something else, an image is damaged, or images differ in size.
            ConfigError: a fraction leaves a split without a class.
        """
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; name one that holds a folder of images a class")
        config = settings({"data.source": "folder", "data.root": str(root), "data.image_size": image_size,
                           "data.val_fraction": val_fraction, "data.test_fraction": test_fraction}).data  # fmt: skip
        raw = open_folder(root, image_size=image_size)
        for note in raw.notes:
            warnings.warn(note, stacklevel=2)
        chosen = select(raw, config=config, seed=seed)
        splits = {
            name: Split(images=chosen[name].part.read(chosen[name].indices), labels=chosen[name].part.labels[chosen[name].indices])
            for name in ("train", "val", "test")
        }
        return cls._of(splits, classes=raw.classes, source=root.name)

    @classmethod
    def _of(cls, splits: Mapping[str, Split], *, classes: Sequence[str] | None, source: str) -> Self:
        """Count, compare and describe splits."""
        n_classes = len(classes) if classes is not None else 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
        names = tuple(map(str, classes)) if classes is not None else tuple(map(str, range(n_classes)))
        if n_classes < 2:
            raise DataError(f"labels: expected two classes at least; got {n_classes}")
        shape = splits["train"].images.shape[1:]
        for name, split in splits.items():
            if split.images.shape[1:] != shape:
                raise DataError(f"{name}: images are {split.images.shape[1:]} (C, H, W), those of train {shape}; make them alike")
            check_labels(split.labels, classes=names, at_least=1, where=name)
        digests = {name: digests_of(np.asarray(split.images)) for name, split in splits.items()}
        twins = find_twins({n: Compared(digests=digests[n], labels=one.labels, name=_numbered(n)) for n, one in splits.items()})
        for line in told(twins, dropped={"train": 0, "val": 0}):
            warnings.warn(line, stacklevel=3)
        pixels = statistics(histogram_of(np.asarray(splits["train"].images)))
        counts = {
            name: {"total": len(split), "per_class": np.bincount(split.labels, minlength=n_classes).tolist()}
            for name, split in splits.items()
        }
        return cls(
            manifest=Manifest(
                source=source, classes=names, channels=shape[0], height=shape[1], width=shape[2], mean=pixels.mean, std=pixels.std,
                counts=counts, sha256={name: _digest(split) for name, split in splits.items()}, duplicates=twins.counts(),
            ),
            splits=dict(splits),
        )  # fmt: skip


def _split(images: Any, labels: Any, *, where: str, channels: Layout | None) -> Split:
    pixels = _pixels(_array(images), where=where)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim != 4:
        raise DataError(f"{where}: expected images (N, H, W), (N, C, H, W) or (N, H, W, C); got {pixels.shape}")
    elif (channels or _layout(pixels.shape, where=where)) == "last":
        pixels = pixels.transpose(0, 3, 1, 2)
    return _checked(pixels, _array(labels), where=where)


def _layout(shape: tuple[int, ...], *, where: str) -> Layout:
    first, last = shape[1] in FEW_CHANNELS, shape[3] in FEW_CHANNELS
    if first == last:
        raise DataError(f"{where}: of images {shape} it cannot be seen which axis is of channels; say channels='first' or 'last'")
    return "first" if first else "last"


def _read(dataset: Labelled, *, where: str) -> Split:
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"{where}: expected an image and its label at each index; got {type(item).__name__} at {index}")
        pixels = _array(item[0])
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3:
            raise DataError(f"{where}: expected an image of two or three axes; image {index} has {pixels.ndim}")
        if not isinstance(item[0], torch.Tensor) and pixels.shape[0] not in FEW_CHANNELS:
            pixels = pixels.transpose(2, 0, 1)  # PIL and NumPy keep channels last
        if images and pixels.shape != images[0].shape:
            raise DataError(f"{where}: image {index} is {pixels.shape} (C, H, W), the first {images[0].shape}; resize them alike")
        images.append(_pixels(pixels, where=f"{where}, image {index}"))
        labels.append(int(item[1]))
    if not images:
        raise DataError(f"{where}: there is no image")
    return _checked(np.stack(images), np.array(labels), where=where)


def _array(values: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array


def _pixels(values: npt.NDArray[Any], *, where: str) -> npt.NDArray[np.uint8]:
    """Return pixel values 0..255."""
    if values.dtype == np.uint8:
        return values
    if np.issubdtype(values.dtype, np.floating):
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if low >= 0 and high <= 1:
            return np.asarray(np.rint(values * 255), dtype=np.uint8)
        raise DataError(f"{where}: floats must lie from 0 to 1, before any normalisation; got {low:g} to {high:g}")
    raise DataError(f"{where}: expected uint8 or floats from 0 to 1; got {values.dtype}")


def _checked(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any], *, where: str) -> Split:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) != len(images):
        raise DataError(f"{where}: expected {len(images)} whole numbers as labels; got {labels.dtype} {labels.shape}")
    if not len(images):
        raise DataError(f"{where}: there is no image")
    return Split(images=np.ascontiguousarray(images), labels=labels.astype(np.int64))


def _numbered(split: str) -> Any:
    return lambda index: f"{split} image {index}"


def _digest(split: Split) -> str:
    digest = hashlib.sha256(np.asarray(split.images).data)
    digest.update(split.labels.data)
    return digest.hexdigest()
