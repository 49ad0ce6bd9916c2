"""Prepared data: what was written reads back equal, is mapped and not loaded, and damage is told from absence."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odn.data.dataset import Manifest, read_manifest, read_split, verified_split
from odn.errors import DataError, MissingInputError
from odn.files import sha256_of
from odn.storage import Objects

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


def each(counts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the same counts to every split."""
    return dict.fromkeys(("train", "val", "test"), counts)


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


@pytest.mark.parametrize("text", ['{"source": "digits"}', '{"color": 1}', "[]"])
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
    assert not np.any(np.asarray(read_split(tmp_path).images))


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


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("std", [0], "std.0 must be greater than 0; got 0"),
        ("std", [0.2, 0.2], "std: expected 1 numbers, one a channel; got 2"),
        ("mean", [1.5], "mean.0 must be less than or equal to 1; got 1.5"),
        ("classes", [], "classes: expected names"),
        ("classes", ["cat", "cat"], "classes: expected names, none of them empty and each once"),
        ("classes", ["cat", ""], "classes: expected names, none of them empty and each once"),
        ("channels", 0, "channels must be greater than or equal to 1; got 0"),
        ("height", 10**9, "height must be less than or equal to 65536; got 1000000000"),
        ("sha256", {"train": "a" * 64}, "sha256: expected the splits train, val, test; got train"),
        ("sha256", {"train": "banana", "val": "b" * 64, "test": "c" * 64}, "sha256.train must match"),
        ("counts", {}, "counts: expected the splits train, val, test; got none"),
        ("counts", each({"total": 3, "per_class": [3]}), "counts.train: expected a total and as many"),
        (
            "counts",
            each({"total": 4, "per_class": [2, 1]}),
            "counts.train: expected a total and as many",
        ),
        (
            "counts",
            each({"total": 0, "per_class": [0, 0]}),
            "counts.train: expected a total and as many",
        ),
        ("counts", each({"total": 3, "per_class": "ab"}), "counts.train: expected a total and as many"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, field: str, value: Any, why: str) -> None:
    """Numbers out of their domain, and fields that contradict one another."""
    (tmp_path / "dataset.json").write_text(json.dumps(dataclasses.asdict(MANIFEST) | {field: value}))
    with pytest.raises(DataError) as refused:
        read_manifest(tmp_path / "dataset.json")
    assert str(refused.value).startswith(f"{tmp_path}/dataset.json is damaged: {why}")


def prepared(folder: Path) -> Manifest:
    """Write a split of three images, and return its manifest."""
    folder.mkdir()
    save(folder, images=np.zeros((3, 1, 8, 9), np.uint8), labels=np.array([0, 0, 1]))
    digest = sha256_of(folder / "images.npy", folder / "labels.npy")
    return dataclasses.replace(MANIFEST, sha256=MANIFEST.sha256 | {"test": digest})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda images, labels: (images, labels + 90), id="labels out of range"),
        pytest.param(lambda images, labels: (images, labels[::-1].copy()), id="labels exchanged"),
        pytest.param(lambda images, labels: (images + np.uint8(1), labels), id="pixels"),
        pytest.param(lambda images, labels: (images[:2], labels[:2]), id="fewer images"),
    ],
)
def test_a_split_that_was_changed_is_refused(tmp_path: Path, change: Callable[..., Any]) -> None:
    """Each stage holds what it reads to the checksum in dataset.json: labels, pixels, their number."""
    manifest = prepared(tmp_path / "test")
    assert len(verified_split(tmp_path / "test", manifest=manifest, objects=Objects)) == 3
    images, labels = change(np.load(tmp_path / "test/images.npy"), np.load(tmp_path / "test/labels.npy"))
    save(tmp_path / "test", images=images, labels=labels)
    with pytest.raises(DataError, match=r"test is not what was prepared \(sha256 .*\); run 'dvc repro -f prepare' to write it anew"):
        verified_split(tmp_path / "test", manifest=manifest, objects=Objects)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 9},
        {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"classes": ("cat", "dog", "owl"), "counts": each({"total": 3, "per_class": [1, 1, 1]})},
    ],
)
def test_a_manifest_of_other_images_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Shape and counts are those of the arrays."""
    manifest = dataclasses.replace(prepared(tmp_path / "test"), **change)
    with pytest.raises(DataError, match="dataset.json says"):
        verified_split(tmp_path / "test", manifest=manifest, objects=Objects)
