"""Prepared data: a manifest, and splits whose images are memory-mapped, or lie in a bucket, and are never loaded whole.

N images, C channels, H height, W width; K classes.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from odn.data.shards import INDEX, Index, OpenObjects, Shards
from odn.errors import DataError, MissingInputError
from odn.files import sha256_of, write_json
from odn.records import Count, Fraction, Record, Sha256, read_record

Images = npt.NDArray[np.uint8]  # (N, C, H, W)
Labels = npt.NDArray[np.int64]  # (N,)
SPLITS = ("train", "val", "test")
Side = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """Describe prepared data: the content of `dataset.json`."""

    source: str
    classes: tuple[str, ...]  # K names; a label is an index into them
    channels: Side
    height: Side
    width: Side
    mean: tuple[Fraction, ...]  # per channel, in [0, 1], over train only
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    counts: dict[str, dict[str, Any]]  # {split: {"total": n, "per_class": [n, ...]}}
    sha256: dict[str, Sha256]  # {split: hex digest of images.npy then labels.npy}
    duplicates: dict[str, Count] = field(default_factory=dict)  # images that are there twice, by where; empty where nobody looked
    # Of splits whose images lie in a bucket: {split: hex digest of shards.json then labels.npy}. `sha256` is that of arrays, as ever.
    index: dict[str, Sha256] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Return K."""
        return len(self.classes)

    def write(self, path: Path) -> None:
        """Write `dataset.json` atomically; where no split lies in a bucket it says nothing of one."""
        write_json(path, {name: value for name, value in asdict(self).items() if name != "index" or value})

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.classes or not all(self.classes) or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: expected names, none of them empty and each once")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name}: expected {self.channels} numbers, one a channel; got {len(getattr(self, name))}")
        for name in ("counts", "sha256"):
            if set(getattr(self, name)) != set(SPLITS):
                raise ValueError(f"{name}: expected the splits {', '.join(SPLITS)}; got {', '.join(getattr(self, name)) or 'none'}")
        for split, counts in self.counts.items():
            if not _adds_up(counts, n_classes=self.n_classes):
                raise ValueError(f"counts.{split}: expected a total and as many counts as classes, which add up to it; got {counts!r:.100}")
        return self


def _adds_up(counts: dict[str, Any], *, n_classes: int) -> bool:
    if set(counts) != {"total", "per_class"} or not isinstance(counts["per_class"], list) or len(counts["per_class"]) != n_classes:
        return False
    is_whole = all(type(count) is int and count >= 0 for count in (counts["total"], *counts["per_class"]))
    return is_whole and 0 < counts["total"] == sum(counts["per_class"])


class Rows(Protocol):
    """Be images (N, C, H, W) that are read as they are asked for: an array, a memory map, or shards that lie elsewhere."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, H, W)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: Any, /) -> Images:
        """Read an image by its number, (C, H, W), or some by a slice or numbers (n,): (n, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Hold one split; slicing `images` reads only the images that are asked for."""

    images: Rows  # (N, C, H, W): a copy-on-write memory map, so that the file never changes, or shards
    labels: Labels  # (N,)

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def read_manifest(path: Path) -> Manifest:
    """Read `dataset.json`.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    return read_record(Manifest, path, made_by="prepare")


def verified_split(folder: Path, *, manifest: Manifest, objects: OpenObjects) -> Split:
    """Open one prepared split, named as its folder is, after its files were held to the manifest: each stage does so once.

    Images that lie in a bucket are held to their digests when they are read, each shard by itself; `objects` opens the bucket.

    Raises:
        MissingInputError: the folder or one of its two files is not there.
        DataError: a file is not the one that `prepare` wrote.
    """
    split, is_here = read_split(folder, objects=objects), folder.name not in manifest.index
    wanted = manifest.sha256[folder.name] if is_here else manifest.index[folder.name]
    found = sha256_of(folder / ("images.npy" if is_here else INDEX), folder / "labels.npy")
    if found != wanted:
        raise DataError(
            f"{folder} is not what was prepared (sha256 {found[:12]}…, dataset.json says {wanted[:12]}…); "
            "run 'dvc repro -f prepare' to write it anew"
        )
    shape = (manifest.counts[folder.name]["total"], manifest.channels, manifest.height, manifest.width)
    if split.images.shape != shape:
        raise DataError(f"{folder} holds images {split.images.shape}, dataset.json says {shape}; run 'dvc repro -f prepare'")
    labels, n_classes = split.labels, manifest.n_classes
    in_range = int(labels.min()) >= 0 and int(labels.max()) < n_classes
    if not in_range or np.bincount(labels, minlength=n_classes).tolist() != manifest.counts[folder.name]["per_class"]:
        raise DataError(f"{folder} does not hold as many images of each class as dataset.json says; run 'dvc repro -f prepare'")
    return split


def read_split(folder: Path, *, objects: OpenObjects | None = None) -> Split:
    """Open one prepared split.

    Raises:
        MissingInputError: the folder or one of its two files is not there.
        DataError: a file is damaged, or shapes and types are not what `prepare` writes; images lie in a bucket, and `objects` is None.
    """
    images = _streamed(folder / INDEX, objects) if (folder / INDEX).exists() else _array(folder / "images.npy", mapped=True)
    labels = _array(folder / "labels.npy", mapped=False)
    found = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
    right_types = images.dtype == np.uint8 and len(images.shape) == 4 and labels.dtype == np.int64 and labels.ndim == 1
    if not right_types or len(images) != len(labels):
        raise DataError(f"{folder}: expected uint8 images (N, C, H, W) and int64 labels (N,); found {found}; run 'dvc repro -f prepare'")
    return Split(images=images, labels=labels)


def _streamed(path: Path, objects: OpenObjects | None) -> Shards:
    index = read_record(Index, path, made_by="prepare")
    if objects is None:
        raise DataError(f"the images of {path.parent} lie at {index.place}; open it with read_split(…, objects=odn.storage.Objects)")
    return Shards(index, objects(index.place))


def _array(path: Path, *, mapped: bool) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise MissingInputError(f"prepared data is missing at {path}; run 'dvc repro prepare' first") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); run 'dvc repro -f prepare' to write it anew") from None
    return array
