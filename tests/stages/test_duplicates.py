"""Equal images in two splits, twice in one, or under two labels, and classes of a handful: named, counted, and mended if asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from odn.data.dataset import Manifest, read_manifest
from odn.errors import DataError
from odn.files import sha256_of

NONE = dict.fromkeys(
    ("train", "val", "test", "val_in_train", "test_in_train", "test_in_val", "conflicts", "dropped_train", "dropped_val"), 0
)
FOLDER: dict[str, Any] = {"source": "folder", "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def make(project: Any, class_folders: Path) -> Any:
    """Run both stages on the class folders."""
    return lambda **data: project.make(root=str(class_folders), **{**FOLDER, **data})


@pytest.fixture
def make_mnist(project: Any, write_idx: Any, digits: tuple[Any, Any]) -> Any:
    """Run both stages on 200 digits as MNIST's training images and 60 others as its test images, after a change of these arrays."""

    def run(change: Any, **data: Any) -> Manifest:
        images, labels = np.zeros((260, 28, 28), np.uint8), digits[1][:260].copy()
        images[:, 10:18, 10:18] = 15 * digits[0][:260]
        change(images, labels)
        for prefix, part in (("train", slice(200)), ("t10k", slice(200, None))):
            write_idx(f"MNIST/raw/{prefix}", images=images[part], labels=labels[part])
        manifest: Manifest = project.make(source="mnist", root=str(project.raw), **data)
        return manifest

    return run


def leak(images: Any, labels: Any) -> None:
    """Put test images 0 to 11 among the training images, and training image 50 there twice more."""
    images[:12], labels[:12] = images[200:212], labels[200:212]
    images[60:62], labels[60:62] = images[50], labels[50]


def test_plain_data_has_none(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The digits of the class folders all differ: nothing is counted of them."""
    assert make().duplicates == NONE
    assert "twice" not in capsys.readouterr().err


def test_test_images_in_train_are_told(make_mnist: Any, project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve images of test are in train or val: counted in dataset.json, and the first of them named with its twin."""
    found = make_mnist(leak).duplicates
    assert found["test_in_train"] + found["test_in_val"] == 12
    assert found["train"] + found["val"] + found["val_in_train"] >= 2
    assert json.loads((project.prepared / "dataset.json").read_text())["duplicates"] == found
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("odn: warning: ") for line in lines)
    assert len(lines) < 12
    told = next(line for line in lines if "of test are in train too" in line)
    assert f"{found['test_in_train']} images of test are in train too: test image 0 (label " in told
    assert "= train image 0 (label " in told
    assert told.endswith(f" and {found['test_in_train'] - 3} more")
    assert any("data.duplicates: drop" in line for line in lines)


def test_a_warning_changes_no_byte(make_mnist: Any, project: Any) -> None:
    """`warn` only tells: the arrays are those of every image."""
    manifest = make_mnist(leak)
    assert {name: one["total"] for name, one in manifest.counts.items()} == {"train": 170, "val": 30, "test": 60}
    for name in ("train", "val", "test"):
        assert manifest.sha256[name] == sha256_of(project.prepared / name / "images.npy", project.prepared / name / "labels.npy")


def test_drop_leaves_test_whole_and_nothing_twice(make_mnist: Any, project: Any) -> None:
    """Test keeps its images; train and val lose what is in test, and all but one of equal ones."""
    warned = make_mnist(leak)
    dropped = make_mnist(leak, duplicates="drop")
    assert dropped.sha256["test"] == warned.sha256["test"]
    assert dropped.duplicates["dropped_train"] + dropped.duplicates["dropped_val"] == 14
    assert dropped.counts["train"]["total"] + dropped.counts["val"]["total"] == 200 - 14
    images = [image.tobytes() for name in ("train", "val", "test") for image in project.split(name).images]
    assert len(set(images)) == len(images)
    assert {name: n for name, n in dropped.duplicates.items() if not name.startswith("dropped")} == {
        name: 0 for name in NONE if not name.startswith("dropped")
    }
    assert read_manifest(project.prepared / "dataset.json") == dropped


def test_an_image_of_two_labels_goes_altogether(make_mnist: Any, project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows which of the labels is right: with drop neither stays, and with warn both are named."""

    def relabel(images: Any, labels: Any) -> None:
        images[71] = images[70]
        labels[70:72] = 3, 4

    assert make_mnist(relabel).duplicates["conflicts"] == 2
    told = next(line for line in capsys.readouterr().err.splitlines() if "under another label" in line)
    assert {"train image 70 (label 3)", "train image 71 (label 4)"} == set(told.partition("too: ")[2].split(" = "))
    found = make_mnist(relabel, duplicates="drop")
    assert found.duplicates["dropped_train"] + found.duplicates["dropped_val"] == 2
    assert found.duplicates["conflicts"] == 0


def test_files_are_named_and_compared_as_they_are_resized(
    project: Any, class_folders: Path, make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another format, another name, another size: what is equal when it is prepared is equal; the folder says the class."""
    Image.new("L", (8, 8), 96).save(class_folders / "0" / "flat.png")
    Image.new("L", (16, 16), 96).save(class_folders / "1" / "flat.bmp")
    assert make(image_size=8).duplicates["conflicts"] == 2
    told = next(line for line in capsys.readouterr().err.splitlines() if "under another label" in line)
    assert {"0/flat.png", "1/flat.bmp"} == set(told.partition("too: ")[2].split(" = "))


@pytest.mark.parametrize("change", ["a test image in train", "an image twice", "two labels"])
def test_refuse_names_them_and_writes_nothing(make_mnist: Any, project: Any, change: str) -> None:
    """A line for each kind, a way out at the end, and no prepared data."""

    def spoil(images: Any, labels: Any) -> None:
        other = 230 if change == "a test image in train" else 31
        images[30] = images[other]
        labels[30] = (labels[other] + (change == "two labels")) % 10

    with pytest.raises(DataError) as refused:
        make_mnist(spoil, duplicates="refuse")
    assert len(refused.value.lines) >= 2
    assert "train image 30 (label" in str(refused.value)
    assert refused.value.lines[-1] == "remove them from the raw data, or set data.duplicates to warn or drop"
    assert not (project.prepared / "dataset.json").exists()
    assert not (project.prepared / "train").exists()


def test_data_without_duplicates_is_not_refused(make: Any) -> None:
    """`refuse` and `drop` leave plain data as it is."""
    plain = make().sha256
    assert make(duplicates="refuse").sha256 == make(duplicates="drop").sha256 == plain


def test_a_class_that_drop_empties_is_refused(project: Any, class_folders: Path, make: Any) -> None:
    """Where every image of a class is another class's too, none is left to learn."""
    for path in (class_folders / "1").iterdir():
        shutil.copyfile(path, class_folders / "2" / f"copy-{path.name}")
    with pytest.raises(DataError, match=r"without its duplicates .*: class '1' has 0 images"):
        make(duplicates="drop")
    assert not project.prepared.exists() or not (project.prepared / "dataset.json").exists()


def test_classes_of_a_handful_are_named(make: Any, class_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten images a class leave two for test: a percentage of them means nothing, and it is said."""
    make()
    lines = capsys.readouterr().err.splitlines()
    assert "odn: warning: fewer than 10 images in train are too few to learn a class from: '0' has 6, '1' has 6, '2' has 7" in lines
    assert "odn: warning: fewer than 5 images in test measure a class in steps of more than 20 %: '0' has 2, '1' has 2, '2' has 2" in lines


def test_a_hostile_file_name_is_shown_without_its_escapes(make: Any, class_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that would write to the terminal is written out."""
    for name in ("a\x1b[31m.png", "b.png"):
        Image.new("L", (8, 8), 96).save(class_folders / "0" / name)
    make()
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "b.png" in shown


def test_many_images_take_little_memory() -> None:
    """200,000 images, every one twice, are compared in a second or two."""
    from odn.data.duplicates import Compared, find_twins

    digests = np.random.default_rng(0).integers(0, 1 << 60, (100_000, 2)).astype(np.uint64)
    part = Compared(digests=digests, labels=np.zeros(len(digests), np.int64), name=str)
    counts = find_twins({"train": part, "val": part, "test": part}).counts()
    assert counts == {name: n for name, n in NONE.items() if not name.startswith("dropped")} | {
        "val_in_train": 100_000,
        "test_in_train": 100_000,
        "test_in_val": 100_000,
    }
