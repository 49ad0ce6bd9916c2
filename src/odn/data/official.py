"""Read the data sets of the table: digits from its own file, the others through torchvision's own classes.

torchvision (and torch with it) is imported here and only when a data set of its is read or downloaded: that takes seconds.
"""

import gzip
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Images, Labels
from odn.data.sources import Part, Raw, Source
from odn.errors import DataError, MissingInputError

DIGITS_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
DIGITS_MAX = 16  # the largest pixel value


def open_official(source: Source, *, folder: Path) -> Raw:
    """Open the files of a data set of the table.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or its images are not of the shape that the table gives.
    """
    for name in source.files:
        if not (folder / name).is_file():
            raise MissingInputError(f"{folder} holds no {name}, a file of {source.title}; run 'dvc repro prepare', which fetches it first")
    if source.reader == "digits":
        train, test = _read_digits(source, folder=folder), None
    else:
        train, test = (_read_torchvision(source, folder=folder, train=train) for train in (True, False))
    return Raw(classes=source.classes, channels=source.channels, height=source.height, width=source.width, train=train, test=test)


def digits_file() -> Path:
    """Find digits.csv.gz in the installed scikit-learn without importing it, which would take seconds.

    Raises:
        DataError: scikit-learn is not installed, or has no such file.
    """
    spec = importlib.util.find_spec("sklearn")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(location) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    found = f"scikit-learn {importlib.metadata.version('scikit-learn')} has no digits.csv.gz" if spec else "scikit-learn is not installed"
    raise DataError(f"digits: {found}; run 'pip install scikit-learn', or put digits.csv.gz in a folder and set data.root to it")


def download_dataset(source: Source, *, root: Path) -> None:
    """Let torchvision download, verify and unpack both splits below the root, in the errors of its libraries."""
    for train in (True, False):
        _dataset(source, root=root, train=train, download=True)


def _read_digits(source: Source, *, folder: Path) -> Part:
    path = folder / source.files[0]
    try:
        with gzip.open(path, "rt") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.int64)  # (N, 65): 64 pixels of 0..16, then the label
        pixels, labels = rows[:, :-1].reshape(-1, 1, source.height, source.width), rows[:, -1]
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise _damaged(source, path, error) from None
    if pixels.min() < 0 or pixels.max() > DIGITS_MAX:
        raise _damaged(source, path, ValueError(f"pixels of {pixels.min()}..{pixels.max()} are not within 0..{DIGITS_MAX}"))
    images = ((pixels * 255 + DIGITS_MAX // 2) // DIGITS_MAX).astype(np.uint8)
    return _part(source, images=images, labels=labels, split="raw", where=str(path))


def _read_torchvision(source: Source, *, folder: Path, train: bool) -> Part:
    from pickle import UnpicklingError

    split = "train" if train else "test"
    try:
        dataset = _dataset(source, root=folder, train=train)
        labels = np.asarray(dataset.labels if source.reader == "SVHN" else dataset.targets, dtype=np.int64)
        images = _channels_first(np.asarray(dataset.data))
    # torchvision checks with assert as well as with exceptions of every kind.
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AssertionError, UnpicklingError) as error:
        raise _damaged(source, folder, error) from None
    if source.reader == "EMNIST":  # stored transposed, labels 1..26
        images, labels = images.transpose(0, 1, 3, 2), labels - 1
    return _part(source, images=images, labels=labels, split=split, where=f"{source.title}, {split} images in {folder}")


def _dataset(source: Source, *, root: Path, train: bool, download: bool = False) -> Any:
    """Make torchvision's data set. Its CIFAR classes read the official pickles, each only after its MD5 is found right."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, source.reader)
    if source.reader == "SVHN":
        return kind(root, split="train" if train else "test", download=download)
    if source.reader == "EMNIST":
        return kind(root, split="letters", train=train, download=download)
    return kind(root, train=train, download=download)


def _channels_first(data: npt.NDArray[Any]) -> Images:
    """(N, H, W), (N, H, W, 3) or (N, 3, H, W) -> (N, C, H, W), a view."""
    if data.ndim == 3:
        return data[:, None]
    return data.transpose(0, 3, 1, 2) if data.shape[-1] == 3 else data


def _part(source: Source, *, images: Images, labels: Labels, split: str, where: str) -> Part:
    shape = (source.channels, source.height, source.width)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(f"{where}: expected uint8 images of (channels, height, width) {shape}; found {images.dtype} {images.shape[1:]}")
    if labels.shape != (len(images),):
        raise DataError(f"{where}: {len(images)} images but {labels.size} labels; the files do not belong together")
    return Part(labels=labels, read=lambda indices: images[indices], name=lambda index: f"{split} image {index} (label {labels[index]})")


def _damaged(source: Source, where: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"{source.title} cannot be read from {where}: a file is truncated or corrupt ({reason}); "
        "replace it under data.root, or set data.root: null to download it, then run 'dvc repro -f fetch' and 'dvc repro'"
    )
