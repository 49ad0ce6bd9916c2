"""Write splits to disk in chunks of bounded size, and take exact statistics of the pixels on the way.

N images, C channels, H height, W width.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Labels
from odn.data.duplicates import Digests, digests_of
from odn.data.sources import Part
from odn.data.splits import Indices
from odn.errors import DataError

CHUNK_BYTES = 4 << 20  # of images held at once; one image where a single one is larger
N_VALUES = 256  # of a uint8 pixel

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


def write_split(folder: Path, *, part: Part, indices: Indices, shape: tuple[int, int, int]) -> Written:
    """Write images.npy and labels.npy of some images of a part.

    The .npy file is written as a stream, not through a memory map, whose dirty pages would count as memory.
    """
    channels, height, width = shape
    chunk = max(1, CHUNK_BYTES // (channels * height * width))
    histogram, digests = np.zeros((channels, N_VALUES), np.int64), [np.empty((0, 2), np.uint64)]
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(indices), chunk):
            images = np.ascontiguousarray(part.read(indices[start : start + chunk]))  # (n, C, H, W)
            assert images.dtype == np.uint8, images.dtype
            assert images.shape[1:] == shape, (images.shape, shape)
            for channel in range(channels):
                histogram[channel] += np.bincount(images[:, channel].ravel(), minlength=N_VALUES)
            digests.append(digests_of(images))
            file.write(images.data)
    labels = part.labels[indices]
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    return Written(labels=labels, digests=np.concatenate(digests), histogram=histogram)


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
