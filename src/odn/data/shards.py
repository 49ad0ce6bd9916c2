"""Read a split whose images lie in an object store, as shards of a fixed number of images: a few are here at a time.

A shard is an .npy file of images (n, C, H, W), named by the SHA-256 of its bytes, to which it is held whenever it arrives. What is here
are files without a name in the system's folder for temporary ones: they go with the process, however it ends.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from odn.data.sharding import GROUP
from odn.errors import DataError
from odn.files import named
from odn.records import Positive, Record, Sha256

INDEX = "shards.json"  # beside labels.npy
DOWNLOADS = 4  # shards at once
HERE = 2 * GROUP  # shards that are kept: of the group that is shown, and of the next one


Pixels = npt.NDArray[np.uint8]  # (n, C, H, W)


class Objects(Protocol):
    """Be a place in an object store."""

    def get(self, name: str, file: BinaryIO) -> None:
        """Copy an object into an open file."""

    def put(self, name: str, file: BinaryIO) -> None:
        """Make an object of what an open file holds from its beginning."""


OpenObjects = Callable[[str], Objects]  # by an address such as s3://bucket/prefix


@dataclass(frozen=True, kw_only=True)
class Index(Record):
    """Say where the images of a split lie: the content of shards.json."""

    place: str
    count: Positive  # N
    shape: tuple[Positive, Positive, Positive]  # (C, H, W)
    size: Positive  # images a shard; the last one may hold fewer
    shards: tuple[Sha256, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.shards) != -(-self.count // self.size):
            raise ValueError(f"shards: expected {self.count} images in shards of {self.size}; got {len(self.shards)} shards")
        return self


class Shards:
    """Be images (N, C, H, W) that are downloaded as they are asked for, at most `HERE` shards at a time; several threads may read."""

    def __init__(self, index: Index, objects: Objects) -> None:
        self.index = index
        self._objects, self._pool, self._lock = objects, ThreadPoolExecutor(DOWNLOADS), threading.Lock()
        self._here: dict[int, Future[Pixels]] = {}
        self._order: list[int] = []  # in which shards are used, where that is known
        self._place: dict[int, int] = {}  # of each in the order
        self._n_begun = 0  # of the order

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, H, W)."""
        return (self.index.count, *self.index.shape)

    def __len__(self) -> int:
        """Return N."""
        return self.index.count

    def __getitem__(self, index: Any, /) -> Pixels:
        """Read an image by its number, (C, H, W), or some by a slice or numbers (n,): (n, C, H, W).

        Raises:
            StorageError: the store cannot be reached or refuses.
            DataError: a shard is not what was written.
        """
        if isinstance(index, (int, np.integer)):
            return np.asarray(self[[range(len(self))[index]]][0])
        numbers = np.array(range(len(self))[index] if isinstance(index, slice) else index, dtype=np.intp)
        images = np.empty((len(numbers), *self.index.shape), np.uint8)
        shards, places = np.divmod(numbers, self.index.size)
        for shard in dict.fromkeys(shards.tolist()):
            mine = np.flatnonzero(shards == shard)
            images[mine] = self._shard(shard)[places[mine]]
        return images

    @contextmanager
    def expected(self, indices: Sequence[Any]) -> Iterator[None]:
        """Download, while the block lasts, a group of shards ahead of what is read, which is asked for in this order."""
        numbers = (np.arange(len(self))[one] if isinstance(one, slice) else one for one in indices)
        self._order = list(dict.fromkeys(shard for one in numbers for shard in np.unique(np.asarray(one) // self.index.size).tolist()))
        self._place = {shard: place for place, shard in enumerate(self._order)}
        try:
            yield
        finally:
            with self._lock:
                self._order, self._place, self._n_begun = [], {}, 0
                for shard in [shard for shard, coming in self._here.items() if coming.cancel()]:
                    del self._here[shard]

    def _shard(self, shard: int) -> Pixels:
        with self._lock:
            coming = self._begun(shard)
            coming_up = self._place.get(shard, -1) + 1 + GROUP
            for one in self._order[self._n_begun : coming_up]:
                self._begun(one)
            self._n_begun = max(self._n_begun, min(coming_up, len(self._order)))
        return coming.result()

    def _begun(self, shard: int) -> Future[Pixels]:
        """Return a shard that is here or on its way, in the place of one that is not used any more, or was used first."""
        if shard not in self._here:
            if len(self._here) >= HERE:
                del self._here[min(self._here, key=lambda one: self._place.get(one, -1))]
            self._here[shard] = self._pool.submit(self._download, shard)
        return self._here[shard]

    def _download(self, shard: int) -> Pixels:
        return read_shard(self.index.shards[shard], self._objects, place=self.index.place, shape=self.index.shape)


def read_shard(name: str, objects: Objects, *, place: str, shape: Sequence[int]) -> Pixels:
    """Download a shard and map it: images (n, C, H, W), whose file is gone when they are.

    Raises:
        StorageError: the store cannot be reached or refuses.
        DataError: it is not what was written.
        OSError: the disk of temporary files is full; it names their folder.
    """
    with named(Path(tempfile.gettempdir())), tempfile.TemporaryFile(prefix="odn-shard-") as file:
        objects.get(object_name(name), file)
        file.flush()
        os.fdatasync(file.fileno())  # pages that are not on the disk yet count as this process's memory, and cannot be given up
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != name:
            raise DataError(f"{place}: {object_name(name)} is not what was prepared; run 'dvc repro -f prepare' to write it anew")
        file.seek(0)
        np.lib.format.read_magic(file)
        there, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.uint8 or there[1:] != tuple(shape):
            raise DataError(f"{place}: {object_name(name)} holds {dtype} {there}, and no images {tuple(shape)}; run 'dvc repro -f prepare'")
        return np.memmap(file, np.uint8, mode="c", offset=file.tell(), shape=there)


def object_name(name: str) -> str:
    """Name the object of a shard."""
    return f"{name}.npy"
