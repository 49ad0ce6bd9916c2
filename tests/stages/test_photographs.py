"""Photographs: cut and resized once, in parallel, resumed after a kill; splits of one's own; what is unbalanced is told."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from odn.data import folder as class_folder
from odn.data.decoding import decode
from odn.errors import DataError
from odn.storage import upload_folder

FOLDER: dict[str, Any] = {"source": "folder", "val_fraction": 0.2, "test_fraction": 0.2}


def photograph(path: Path, *, seed: int, size: tuple[int, int] = (24, 20), grey: bool = False) -> None:
    """Write a noisy image; its format is that of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(path)


def photographs(root: Path, *, counts: dict[str, int], first: int = 0) -> None:
    """Write so many different images of each class."""
    for number, name in enumerate(name for name, n in counts.items() for _ in range(n)):
        photograph(root / name / f"{number:03}.png", seed=first + number)


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every prepared file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    """Of a wide image the sides go; nothing is squeezed."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", channels=3, image_size=10) == 200).all()
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    half = decode(tmp_path / "tall.png", channels=3, image_size=5)
    assert (half[:, 1:-1] == 200).all()
    assert half.min() > 150  # antialiased at the border, where the pixels beyond it count too


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    """Decoded at a quarter of its size on the way, a photograph differs by a few levels from one decoded in full."""
    ramp = np.add.outer(np.arange(640), np.arange(900)) / 6
    Image.fromarray(ramp.astype(np.uint8)).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    Image.open(tmp_path / "large.jpg").save(tmp_path / "large.png")
    small, full = (decode(tmp_path / f"large.{kind}", channels=3, image_size=64).astype(int) for kind in ("jpg", "png"))
    assert np.abs(small - full).max() <= 4


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_bytes(project: Any, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Images stand in the order of their draw, whoever decoded them."""
    photographs(project.raw, counts={"a": 20, "b": 20})
    monkeypatch.setattr(class_folder, "usable_cores", lambda: threads)
    project.make(root=str(project.raw), image_size=16, **FOLDER)
    split, name = project.split("test"), "ab"
    paths = {decode(path, channels=3, image_size=16).tobytes(): path.parent.name for path in project.raw.rglob("*.png")}
    assert [paths[image.tobytes()] for image in split.images] == [name[label] for label in split.labels]


def test_grey_photographs_among_color_ones_become_color(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lost by it; it is told with the name of one."""
    photographs(project.raw, counts={"a": 6, "b": 6})
    photograph(project.raw / "a" / "grey.png", seed=99, grey=True)
    assert project.make(root=str(project.raw), image_size=16, **FOLDER).channels == 3
    assert "1 of 13 images are grey, and become color of three equal channels: " in capsys.readouterr().err


def test_images_smaller_than_asked_are_enlarged_and_told(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """How many there are, and the smallest by its name and size."""
    photographs(project.raw, counts={"a": 6, "b": 6})
    for number, width in enumerate((9, 7)):
        photograph(project.raw / "b" / f"z{number}.png", seed=99 + number, size=(width, 20))
    assert project.make(root=str(project.raw), image_size=16, **FOLDER).width == 16
    said = capsys.readouterr().err
    assert "2 of 14 images are smaller than data.image_size 16 and are enlarged, which adds no detail: the smallest, " in said
    assert "b/z1.png, is 7x20 pixels" in said


KILLED = """
import os, signal, sys
from odn.data import folder
from odn.cli import main
decode, n = folder.decode, 0
def one(*arguments, **keywords):
    global n
    n += 1
    if n > 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*arguments, **keywords)
folder.decode = one
from odn.data import arrays
arrays.CHUNK_BYTES = 3 * 16 * 16 * 4
main(sys.argv[1:])
"""


def test_a_killed_prepare_goes_on_and_gives_the_same_bytes(project: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What was decoded before the kill is not decoded again; a chunk that was torn is."""
    photographs(project.raw, counts={"a": 20, "b": 20})
    settings = {"root": str(project.raw), "image_size": 16, **FOLDER}
    project.make(**settings)
    uninterrupted = content(project.prepared)
    shutil.rmtree(project.prepared)
    paths = ["--data", project.downloads, "--prepared", project.prepared, "--progress", project.progress]
    command = [sys.executable, "-c", KILLED, "prepare", "--params", project.folder / "params.yaml", *paths]
    killed = subprocess.run([*map(str, command)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (begun,) = project.progress.glob("prepare/*/train/images.npy")
    with begun.open("r+b") as file:
        file.truncate(begun.stat().st_size - 5)  # as a machine that went down might leave it
    decoded: list[Path] = []

    def counted(path: Path, **keywords: Any) -> Any:
        decoded.append(path)
        return decode(path, **keywords)

    monkeypatch.setattr(class_folder, "decode", counted)
    project.prepare(**settings)
    assert content(project.prepared) == uninterrupted
    assert len(decoded) == 40 - 24 + 1  # six chunks of four were written, and the last image of them was torn
    assert "going on with the images that an interrupted prepare has written" in capsys.readouterr().err
    assert not list(project.progress.glob("prepare/*/"))


def test_other_settings_begin_anew(project: Any) -> None:
    """What an interrupted run has begun for another size is removed, not mixed in."""
    photographs(project.raw, counts={"a": 10, "b": 10})
    settings = {"root": str(project.raw), **FOLDER}
    stale = project.progress / "prepare" / "0123456789abcdef" / "train"
    stale.mkdir(parents=True)
    (stale / "images.npy").write_bytes(b"half")
    assert project.make(image_size=16, **settings).height == 16
    assert not stale.exists()


@pytest.mark.parametrize("own", [("train", "val", "test"), ("train", "test"), ("train", "val")])
def test_splits_of_ones_own_are_taken_as_they_are(project: Any, own: tuple[str, ...]) -> None:
    """Folders train, val and test hold class folders; what is not there is drawn from train."""
    sizes = {"train": 15, "val": 3, "test": 4}
    for number, name in enumerate(own):
        photographs(project.raw / name, counts={"a": sizes[name], "b": sizes[name] + 1}, first=100 * number)
    manifest = project.make(root=str(project.raw), image_size=16, **FOLDER)
    for name in own[1:]:
        assert manifest.counts[name]["per_class"] == [sizes[name], sizes[name] + 1]
        expected = [decode(path, channels=3, image_size=16) for path in sorted((project.raw / name).rglob("*.png"))]
        assert np.array_equal(project.split(name).images, expected)
    assert sum(counts["total"] for counts in manifest.counts.values()) == sum(2 * sizes[name] + 1 for name in own)


def test_a_bucket_has_splits_of_ones_own_too(project: Any, s3: Any) -> None:
    """The same folders under s3://bucket/prefix give the same arrays."""
    for number, name in enumerate(("train", "test")):
        photographs(project.raw / name, counts={"a": 8, "b": 8}, first=100 * number)
    s3.create_bucket(Bucket="own-splits")
    upload_folder(project.raw, address="s3://own-splits/v1")
    here = project.make(root=str(project.raw), image_size=16, **FOLDER)
    there = project.make(root="s3://own-splits/v1", image_size=16, **{**FOLDER, "source": "s3"})
    assert there.sha256 == here.sha256


def test_train_of_ones_own_is_shuffled(project: Any) -> None:
    """Statistics over batches in order would otherwise be those of one class at a time."""
    for number, name in enumerate(("train", "val", "test")):
        photographs(project.raw / name, counts={"a": 20, "b": 20}, first=100 * number)
    project.make(root=str(project.raw), image_size=16, **FOLDER)
    assert 5 < project.split("train").labels[:20].sum() < 15


def test_classes_that_are_called_train_and_test_are_classes(project: Any) -> None:
    """Where the folders hold images themselves they are classes, whatever they are called."""
    photographs(project.raw, counts={"train": 8, "test": 8})
    assert project.make(root=str(project.raw), image_size=16, **FOLDER).classes == ("test", "train")


def test_a_split_that_lacks_a_class_is_refused(project: Any) -> None:
    """Every split has the same classes; the message names the one that is missing, and where."""
    photographs(project.raw / "train", counts={"a": 5, "b": 5, "c": 5})
    photographs(project.raw / "test", counts={"a": 2, "b": 2})
    with pytest.raises(DataError, match="raw/test has no folder of the class 'c', which .*raw/train has; every split needs every class"):
        project.fetch(root=str(project.raw), **FOLDER)


def test_a_class_with_one_image_is_refused(project: Any) -> None:
    """One cannot be in three splits."""
    photographs(project.raw, counts={"a": 9, "lonely": 1})
    project.fetch(root=str(project.raw), image_size=16, **FOLDER)
    with pytest.raises(DataError, match="class 'lonely' has 1 image and needs at least 3"):
        project.prepare(root=str(project.raw), image_size=16, **FOLDER)


def test_imbalance_is_told(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest and the smallest class are named with their numbers; balanced classes are not spoken of."""
    photographs(project.raw, counts={"many": 60, "few": 15})
    project.make(root=str(project.raw), image_size=16, **FOLDER)
    assert "classes are imbalanced: in train 'many' has 38 images and 'few' 10; " in capsys.readouterr().err
    photographs(project.raw, counts={"many": 0, "few": 45}, first=500)
    project.make(root=str(project.raw), image_size=16, **FOLDER)
    assert "imbalanced" not in capsys.readouterr().err


def test_photographs_that_are_equal_when_decoded_are_found(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same picture in another format and under another name is the same; dropping it decodes nothing again."""
    for number, name in enumerate(("train", "val", "test")):
        photographs(project.raw / name, counts={"a": 6, "b": 6}, first=100 * number)
    Image.open(project.raw / "train" / "a" / "000.png").save(project.raw / "test" / "a" / "copy.bmp")
    warned = project.make(root=str(project.raw), image_size=16, **FOLDER)
    assert (warned.duplicates["test_in_train"], warned.counts["train"]["total"]) == (1, 12)
    assert "test/a/copy.bmp = train/a/000.png" in capsys.readouterr().err
    dropped = project.prepare(root=str(project.raw), image_size=16, duplicates="drop", **FOLDER)
    assert (dropped.duplicates["dropped_train"], dropped.counts["train"]["total"]) == (1, 11)
    assert len(project.split("train")) == 11
    assert sorted(content(project.prepared / "train")) == [".odn-manifest.json", "images.npy", "labels.npy"]
