"""Arrays: written in chunks, read back equal, with statistics that are exact."""

from pathlib import Path

import numpy as np
import pytest

from odn.data import arrays
from odn.data.arrays import statistics, write_split
from odn.data.dataset import Images, read_split
from odn.data.sources import Part
from odn.data.splits import Indices
from odn.errors import DataError

SHAPE = (3, 4, 5)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, *SHAPE), dtype=np.uint8)
PART = Part(labels=np.arange(50) % 7, read=lambda indices: IMAGES[indices], name=str)
INDICES = np.random.default_rng(1).permutation(50)[:33]


@pytest.mark.parametrize("chunk_images", [1, 8, 1000])
def test_a_split_reads_back_as_it_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_images: int) -> None:
    """The chosen images and labels, in the chosen order, whatever the size of the chunks."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", chunk_images * 60)
    write_split(tmp_path, part=PART, indices=INDICES, shape=SHAPE)
    split = read_split(tmp_path)
    assert np.array_equal(np.asarray(split.images), IMAGES[INDICES])
    assert np.array_equal(split.labels, PART.labels[INDICES])


def test_no_chunk_is_larger_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are asked for a few at a time, never all at once."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 8 * 60)
    asked: list[int] = []

    def read(indices: Indices) -> Images:
        asked.append(len(indices))
        return IMAGES[indices]

    write_split(tmp_path, part=Part(labels=PART.labels, read=read, name=str), indices=INDICES, shape=SHAPE)
    assert asked == [8, 8, 8, 8, 1]


def test_the_file_is_what_numpy_itself_would_write(tmp_path: Path) -> None:
    """Byte for byte, so that any reader of .npy reads it."""
    write_split(tmp_path, part=PART, indices=INDICES, shape=SHAPE)
    np.save(tmp_path / "expected.npy", IMAGES[INDICES])
    assert (tmp_path / "images.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_mean_and_std_are_those_of_all_pixels(tmp_path: Path) -> None:
    """In [0, 1] and per channel; the tolerance is that of the floating sums compared with."""
    histogram = write_split(tmp_path, part=PART, indices=INDICES, shape=SHAPE).histogram
    pixels = IMAGES[INDICES].astype(np.float64) / 255
    found = statistics(histogram)
    assert found.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert found.std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)


def test_statistics_are_exact() -> None:
    """Half of the pixels 0 and half 255 is mean 1/2 and std 1/2 to the last bit, however many there are."""
    histogram = np.zeros((1, 256), np.int64)
    histogram[0, [0, 255]] = 10**12 + 7
    assert statistics(histogram) == arrays.Statistics(mean=(0.5,), std=(0.5,))


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    """Beside a channel that varies, one that does not has std 1, so that normalising makes it 0."""
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, 51] = 8
    histogram[1, [0, 255]] = 4
    assert statistics(histogram) == arrays.Statistics(mean=(0.2, 0.5), std=(1.0, 0.5))


def test_blank_images_are_refused() -> None:
    """Where no pixel differs from another there is nothing to learn."""
    histogram = np.zeros((1, 256), np.int64)
    histogram[0, 255] = 100
    with pytest.raises(DataError, match=r"every pixel of the training images has the same value \(255\)"):
        statistics(histogram)
