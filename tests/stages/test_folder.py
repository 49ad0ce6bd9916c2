"""Class folders: any plain image becomes pixels, in bounded memory; whatever is not plain is refused by name."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER: dict[str, Any] = {"source": "folder", "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def make(project: Any, class_folders: Path) -> Any:
    """Run both stages on the class folders."""
    return lambda **data: project.make(root=str(class_folders), **{**FOLDER, **data})


def pixels_of(project: Any, label: int) -> set[bytes]:
    """Return every prepared image of a class, as bytes."""
    splits = [project.split(name) for name in ("train", "val", "test")]
    return {image.tobytes() for split in splits for image in split.images[split.labels == label]}


def test_every_image_arrives_with_its_class(project: Any, class_folders: Path, make: Any) -> None:
    """Folder names in order are the classes, and no pixel changes."""
    manifest = make()
    assert (manifest.classes, manifest.channels, manifest.height, manifest.width) == (("0", "1", "2"), 1, 8, 8)
    for label in range(3):
        assert pixels_of(project, label) == {Image.open(path).tobytes() for path in (class_folders / str(label)).iterdir()}


def test_the_splits_are_stratified(make: Any) -> None:
    """30 images: 6 to test, 5 of the other 24 to val."""
    assert {name: c["per_class"] for name, c in make().counts.items()} == {"train": [6, 6, 7], "val": [2, 2, 1], "test": [2, 2, 2]}


def test_hidden_files_are_not_looked_at(class_folders: Path, make: Any) -> None:
    """.DS_Store and .git are nobody's images."""
    (class_folders / "0" / ".DS_Store").touch()
    (class_folders / ".git").mkdir()
    assert make().classes == ("0", "1", "2")


def test_images_are_resized_when_asked(project: Any, class_folders: Path, make: Any) -> None:
    """With data.image_size any sizes go together."""
    Image.new("L", (30, 20), 100).save(class_folders / "0" / "large.png")
    manifest = make(image_size=6)
    assert (manifest.height, manifest.width) == (6, 6)
    assert bytes([100] * 36) in pixels_of(project, 0)


@pytest.mark.parametrize("name", ["x.jpg", "x.bmp", "x.tif", "x.pgm"])
def test_any_of_the_formats_is_an_image(project: Any, class_folders: Path, make: Any, name: str) -> None:
    """A flat grey image survives every format."""
    Image.new("L", (8, 8), 96).save(class_folders / "0" / name)
    make()
    assert bytes([96] * 64) in pixels_of(project, 0)


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("1", (8, 8), 1), 255),
        (Image.new("LA", (8, 8), (7, 255)), 7),
    ],
)
def test_black_and_white_and_opaque_grey_are_grey(project: Any, class_folders: Path, make: Any, image: Image.Image, grey: int) -> None:
    """Modes that lose nothing as 8-bit grey go together with it."""
    image.save(class_folders / "0" / "x.png")
    make()
    assert bytes([grey] * 64) in pixels_of(project, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_opaque_color_of_any_kind_is_rgb(project: Any, class_folders: Path, make: Any, mode: str) -> None:
    """Palettes and alpha channels that hide nothing become three channels."""
    for path in class_folders.rglob("*.png"):
        Image.merge("RGB", [Image.open(path)] * 3).convert(mode).save(path)
    manifest = make()
    assert (manifest.channels, len(manifest.mean)) == (3, 3)
    images = project.split("train").images
    assert np.array_equal(images[:, 0], images[:, 2])


def test_photographs_stand_upright(project: Any, class_folders: Path, make: Any) -> None:
    """A camera's note that the picture lies on its side is heeded."""
    for path in class_folders.rglob("*.png"):
        Image.open(path).resize((8, 6)).save(path)
    lying = Image.new("L", (6, 8), 0)
    lying.paste(255, (0, 0, 3, 8))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view: the left side comes up
    lying.save(class_folders / "0" / "photo.jpg", exif=exif, quality=100)
    assert (make().height, make().width) == (6, 8)
    upright = np.concatenate([project.split(name).images for name in ("train", "val", "test")])
    assert any((image[0, :3] > 250).all() and (image[0, 3:] < 5).all() for image in upright)


def test_memory_is_bounded_by_a_chunk(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of pixels pass through less than 6 MB, a chunk of half a megabyte and its statistics."""
    monkeypatch.setattr("odn.data.arrays.CHUNK_BYTES", 1 << 19)
    for number in range(100):
        path = project.raw / str(number % 2) / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 256), (number, 0, 0)).save(path)
    project.fetch(root=str(project.raw), **FOLDER)
    tracemalloc.start()
    try:
        project.prepare(root=str(project.raw), **FOLDER)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (project.prepared / "train" / "images.npy").stat().st_size > 12e6
    assert peak_bytes < 6e6


def test_a_bucket_is_a_folder_of_class_folders(project: Any, s3: Any, class_folders: Path) -> None:
    """The same images under s3://bucket/prefix give the same arrays."""
    from odn.storage import upload_folder

    s3.create_bucket(Bucket="images")
    upload_folder(class_folders, address="s3://images/v1")
    from_folder = project.make(root=str(class_folders), **FOLDER)
    fetched = project.fetch(root="s3://images/v1", **{**FOLDER, "source": "s3"})
    assert (fetched.origin, fetched.n_files) == ("s3://images/v1", 30)
    from_bucket = project.prepare(root="s3://images/v1", **{**FOLDER, "source": "s3"})
    assert from_bucket.sha256 == from_folder.sha256
