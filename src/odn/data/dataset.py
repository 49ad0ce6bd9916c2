"""Prepared data on disk: a manifest, and splits whose images are memory-mapped, never loaded whole.

N images, C channels, H height, W width; K classes.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from odn.errors import DataError, MissingInputError
from odn.files import read_json, write_json

Images = npt.NDArray[np.uint8]  # (N, C, H, W)
Labels = npt.NDArray[np.int64]  # (N,)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Describe prepared data: the content of `dataset.json`."""

    source: str
    classes: tuple[str, ...]  # K names; a label is an index into them
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]  # per channel, in [0, 1], over train only
    std: tuple[float, ...]
    counts: dict[str, dict[str, Any]]  # {split: {"total": n, "per_class": [n, ...]}}
    sha256: dict[str, str]  # {split: hex digest of images.npy then labels.npy}
    duplicates: dict[str, int] = field(default_factory=dict)  # images that are there twice, by where; empty where nobody looked

    @property
    def n_classes(self) -> int:
        """Return K."""
        return len(self.classes)

    def write(self, path: Path) -> None:
        """Write `dataset.json` atomically."""
        write_json(path, asdict(self))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Hold one split; slicing `images` reads only the images that are asked for."""

    images: Images  # (N, C, H, W), a copy-on-write memory map: the file never changes
    labels: Labels  # (N,)

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def read_manifest(path: Path) -> Manifest:
    """Read `dataset.json`.

    Raises:
        MissingInputError: it is not there, or not JSON.
        DataError: its fields are not a manifest's.
    """
    content = read_json(path, made_by="prepare")
    try:
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        return Manifest(**fields)
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest of prepared data ({error}); run 'dvc repro -f prepare' to write it anew") from None


def read_split(folder: Path) -> Split:
    """Open one prepared split.

    Raises:
        MissingInputError: the folder or one of its two arrays is not there.
        DataError: an array is damaged, or shapes and types are not what `prepare` writes.
    """
    images, labels = _array(folder / "images.npy", mapped=True), _array(folder / "labels.npy", mapped=False)
    found = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
    right_types = images.dtype == np.uint8 and images.ndim == 4 and labels.dtype == np.int64 and labels.ndim == 1
    if not right_types or len(images) != len(labels):
        raise DataError(f"{folder}: expected uint8 images (N, C, H, W) and int64 labels (N,); found {found}; run 'dvc repro -f prepare'")
    return Split(images=images, labels=labels)


def _array(path: Path, *, mapped: bool) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise MissingInputError(f"prepared data is missing at {path}; run 'dvc repro prepare' first") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); run 'dvc repro -f prepare' to write it anew") from None
    return array
