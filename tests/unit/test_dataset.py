"""Prepared data: what was written reads back equal, is mapped and not loaded, and damage is told from absence."""

from pathlib import Path

import numpy as np
import pytest

from odn.data.dataset import Manifest, read_manifest, read_split
from odn.errors import DataError, MissingInputError

MANIFEST = Manifest(
    source="folder",
    classes=("cat", "dög"),
    channels=1,
    height=8,
    width=9,
    mean=(0.25,),
    std=(1 / 3,),
    counts={split: {"total": 3, "per_class": [2, 1]} for split in ("train", "val", "test")},
    sha256={"train": "a" * 64, "val": "b" * 64, "test": "c" * 64},
)


def save(folder: Path, *, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split by hand."""
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def test_a_manifest_reads_back_equal(tmp_path: Path) -> None:
    """Every field survives, fractions to the last bit."""
    MANIFEST.write(tmp_path / "dataset.json")
    assert read_manifest(tmp_path / "dataset.json") == MANIFEST
    assert MANIFEST.n_classes == 2


def test_a_missing_manifest_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    """The way out is in the message."""
    with pytest.raises(MissingInputError, match="dataset.json is missing; run 'dvc repro prepare' first"):
        read_manifest(tmp_path / "dataset.json")


@pytest.mark.parametrize("text", ['{"source": "digits"}', '{"colour": 1}', "[]"])
def test_a_manifest_of_other_fields_is_refused(tmp_path: Path, text: str) -> None:
    """JSON that is no manifest is damage, not absence."""
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="dataset.json is damaged: .*; run 'dvc repro -f prepare' to write it anew"):
        read_manifest(tmp_path / "dataset.json")


def test_images_are_mapped_and_the_file_is_safe(tmp_path: Path) -> None:
    """Opening a split loads no image, and writing to one never reaches the file."""
    save(tmp_path, images=np.zeros((5, 1, 2, 2), np.uint8), labels=np.zeros(5, np.int64))
    split = read_split(tmp_path)
    assert isinstance(split.images, np.memmap)
    split.images[0] = 1
    assert len(split) == 5
    assert not read_split(tmp_path).images.any()


def test_a_missing_split_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    """The way out is in the message."""
    with pytest.raises(MissingInputError, match=r"prepared data is missing at .*images.npy; run 'dvc repro prepare' first"):
        read_split(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((5, 1, 2, 2), np.float32), np.zeros(5, np.int64)),
        (np.zeros((5, 2, 2), np.uint8), np.zeros(5, np.int64)),
        (np.zeros((5, 1, 2, 2), np.uint8), np.zeros(5, np.int32)),
        (np.zeros((5, 1, 2, 2), np.uint8), np.zeros(4, np.int64)),
    ],
)
def test_arrays_of_other_shapes_or_types_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The message has what is expected and what was found."""
    save(tmp_path, images=images, labels=labels)
    with pytest.raises(DataError, match=r"expected uint8 images \(N, C, H, W\) and int64 labels \(N,\); found images " + str(images.dtype)):
        read_split(tmp_path)


@pytest.mark.parametrize("n_bytes", [0, 60, 140])
def test_a_truncated_array_is_refused(tmp_path: Path, n_bytes: int) -> None:
    """A file cut anywhere is damage, with the way to write it anew."""
    save(tmp_path, images=np.zeros((5, 1, 2, 2), np.uint8), labels=np.zeros(5, np.int64))
    whole = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(whole[:n_bytes])
    with pytest.raises(DataError, match=r"images.npy is damaged .*run 'dvc repro -f prepare'"):
        read_split(tmp_path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    """An .npy file that holds Python objects is refused, not run."""
    np.save(tmp_path / "images.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="images.npy is damaged"):
        read_split(tmp_path)
