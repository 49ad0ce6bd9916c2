"""Write splits to disk in chunks of bounded size, and take exact statistics of the pixels on the way; go on where a kill broke it off.

N images, C channels, H height, W width.
"""

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Images, Labels
from odn.data.duplicates import DIGEST_BYTES, Digests, digests_of
from odn.data.progress import Tick, untold
from odn.data.sources import Part
from odn.data.splits import Indices
from odn.errors import DataError

CHUNK_BYTES = 8 << 20  # of images held at once; one image where a single one is larger
N_VALUES = 256  # of a uint8 pixel
DIGESTS = "digests.bin"  # beside images.npy while it is written

Shape = tuple[int, int, int]  # (C, H, W)
Histogram = npt.NDArray[np.int64]  # (C, 256): how often each channel takes each value


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Hold mean and standard deviation per channel, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """Hold what is known of a split when it is written."""

    labels: Labels  # (N,)
    digests: Digests
    histogram: Histogram
    sha256: str  # hex, of images.npy then labels.npy, wherever the images lie


class Tally:
    """Count what goes into a split, in order."""

    def __init__(self, n_images: int, shape: Shape) -> None:
        """Begin with no image of so many."""
        self.histogram: Histogram = np.zeros((shape[0], N_VALUES), np.int64)
        self.digests: list[Digests] = [np.empty((0, 2), np.uint64)]
        self._sha256 = hashlib.sha256(header_of(n_images, shape))

    def add(self, images: Images) -> Digests:
        """Count images (n, C, H, W), and return their digests."""
        self.histogram += histogram_of(images)
        self._sha256.update(np.ascontiguousarray(images).data)
        self.digests.append(digests_of(images))
        return self.digests[-1]

    def written(self, folder: Path, labels: Labels) -> Written:
        """Write labels.npy, and return what is known of the split."""
        np.save(folder / "labels.npy", labels, allow_pickle=False)
        self._sha256.update((folder / "labels.npy").read_bytes())
        return Written(labels=labels, digests=np.concatenate(self.digests), histogram=self.histogram, sha256=self._sha256.hexdigest())


def write_split(folder: Path, *, part: Part, indices: Indices, shape: Shape, tick: Tick = untold) -> Written:
    """Write images.npy and labels.npy of some images of a part; what an earlier process wrote of the same into the folder is kept.

    The digest of each image stands in a file beside them: what is whole by it is not decoded again. Who calls sees to it that the folder
    holds nothing of another part. The .npy file is written as a stream, not through a memory map, whose dirty pages would count as memory.
    """
    tally = Tally(len(indices), shape)
    header = header_of(len(indices), shape)
    path, names = folder / "images.npy", folder / DIGESTS
    for one in (path, names):
        one.touch()
    with path.open("r+b") as file, names.open("r+b") as log:
        n_done = _whole_images(file, log, header=header, shape=shape, tally=tally, tick=tick)
        if not n_done:
            file.write(header)
        for images in chunks_of(part, indices[n_done:], shape=shape):
            file.write(images.data)
            file.flush()
            log.write(tally.add(images).data)
            log.flush()
            tick(len(images))
    return tally.written(folder, part.labels[indices])


def chunks_of(part: Part, indices: Indices, *, shape: Shape) -> Iterator[Images]:
    """Read images of a part, as many at once as a chunk holds: (n, C, H, W)."""
    chunk = _chunk(shape)
    for start in range(0, len(indices), chunk):
        images = np.ascontiguousarray(part.read(indices[start : start + chunk]))
        assert images.dtype == np.uint8, images.dtype
        assert images.shape[1:] == shape, (images.shape, shape)
        yield images


def _whole_images(file: BinaryIO, log: BinaryIO, *, header: bytes, shape: Shape, tally: Tally, tick: Tick) -> int:
    """Count, into the tally too, the images from the first on that are whole by their digests, and cut both files off behind them."""
    n_done, size, chunk = 0, math.prod(shape), _chunk(shape)
    goes_on = file.read(len(header)) == header
    while goes_on:
        logged = np.frombuffer(log.read(DIGEST_BYTES * chunk), np.uint8)
        content = file.read(size * (logged.size // DIGEST_BYTES))
        images = np.frombuffer(content[: len(content) // size * size], np.uint8).reshape(-1, *shape)
        wanted = logged[: DIGEST_BYTES * len(images)].view(np.uint64).reshape(-1, 2)
        wrong = np.flatnonzero((digests_of(images) != wanted).any(axis=1))
        n_whole = int(wrong[0]) if len(wrong) else len(images)
        tally.add(images[:n_whole])
        tick(n_whole)
        n_done, goes_on = n_done + n_whole, n_whole == chunk
    log.truncate(DIGEST_BYTES * n_done)
    log.seek(DIGEST_BYTES * n_done)
    end = len(header) + size * n_done if n_done else 0
    file.truncate(end)
    file.seek(end)
    return n_done


def header_of(n_images: int, shape: Shape) -> bytes:
    """Return what an .npy file of so many images begins with."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n_images, *shape)})
    return file.getvalue()


def _chunk(shape: tuple[int, ...]) -> int:
    """Return how many images are held at once."""
    return max(1, CHUNK_BYTES // math.prod(shape))


def histogram_of(images: Images) -> Histogram:
    """Count how often each channel of images (N, C, H, W) takes each value; so many at once as a chunk holds, as counting widens them."""
    histogram, chunk = np.zeros((images.shape[1], N_VALUES), np.int64), _chunk(images.shape[1:])
    for start in range(0, len(images), chunk):
        for channel in range(images.shape[1]):
            histogram[channel] += np.bincount(images[start : start + chunk, channel].ravel(), minlength=N_VALUES)
    return histogram


def statistics(histogram: Histogram) -> Statistics:
    """Return mean and std from integer sums, so that neither the order of images nor the chunk size changes a bit of them.

    A channel of one value gets std 1, so that normalising makes it 0 and not NaN.

    Raises:
        DataError: every channel has one value only: the images are blank.
    """
    means, stds = [], []
    for counts in histogram.tolist():  # Python integers do not overflow
        n_pixels = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / (n_pixels * (N_VALUES - 1)))
        stds.append(math.sqrt(n_pixels * squares - total * total) / (n_pixels * (N_VALUES - 1)))
    if not any(stds):
        raise DataError(f"every pixel of the training images has the same value ({means[0] * 255:.0f}): there is nothing to learn from")
    return Statistics(mean=tuple(means), std=tuple(std or 1.0 for std in stds))
