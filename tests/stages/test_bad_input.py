"""Bad input at the command line: exit code 2, one plain message that names the way out, and nothing half-written."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from odn.files import MANIFEST

FOLDER: dict[str, Any] = {"source": "folder", "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def refused(project: Any, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command that must exit with 2 and leave no output; return its message."""

    def run(command: str) -> str:
        out = project.downloads if command == "fetch" else project.prepared
        assert project.command(command) == 2
        assert not [path for path in out.rglob("*") if path.is_file()], "a refused command must write nothing"
        leftovers = [path.name for path in project.folder.rglob(".*") if path.name != MANIFEST]
        assert not leftovers, "a refused command must leave no temporary folder"
        begun = [path for path in project.progress.rglob("*") if path.is_dir()]
        assert begun in ([], [project.progress / "prepare"]), "a refused command must leave no image that it has begun"
        message = capsys.readouterr().err
        assert message.startswith("odn: ")
        return message

    return run


def truncate(path: Path) -> None:
    """Cut a file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_true_process_exits_with_2_and_no_traceback(project: Any) -> None:
    """What the other tests check in process is so in a shell too."""
    project.configure(source="folder", root="no/such/folder")
    command = [sys.executable, "-m", "odn", "fetch"]
    result = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    expected = "odn: data.root: no/such/folder does not exist; name a folder that holds one folder of images a class\n"
    assert result.stderr == expected


@pytest.mark.parametrize("source", ["mnist", "cifar10", "digits"])
def test_a_missing_root_of_a_known_data_set(project: Any, refused: Any, source: str) -> None:
    """Names the folder, a file that it should hold, and that null downloads."""
    project.configure(source=source, root="no/such/folder")
    assert "data.root: there is no folder no/such/folder; name the folder that holds " in refused("fetch")


def test_a_root_that_lacks_files(project: Any, refused: Any, write_idx: Any, digits: Any) -> None:
    """Lists every file that is missing, as it must be laid out."""
    write_idx("MNIST/raw/train", images=digits[0], labels=digits[1])
    project.configure(source="mnist", root=str(project.raw))
    message = refused("fetch")
    assert "holds no MNIST/raw/t10k-images-idx3-ubyte (2 of 4 files of MNIST are missing: " in message
    assert message.endswith("lay them out so, unpacked, or set data.root: null to download them\n")


def test_a_root_that_is_a_file(project: Any, refused: Any) -> None:
    """Says so."""
    project.raw.touch()
    project.configure(source="folder", root=str(project.raw))
    assert f"data.root: {project.raw} is a file; name a folder" in refused("fetch")


@pytest.mark.parametrize(("n_classes", "found"), [(0, "no class folders"), (1, "one class folder")])
def test_fewer_than_two_classes(project: Any, refused: Any, class_folders: Path, n_classes: int, found: str) -> None:
    """There is nothing to tell apart."""
    for label in range(n_classes, 3):
        (class_folders / str(label)).rename(project.folder / f"elsewhere{label}")
    project.configure(source="folder", root=str(class_folders))
    assert f"holds {found}; expected one folder a class, two at least" in refused("fetch")


def test_an_empty_class_folder(project: Any, refused: Any, class_folders: Path) -> None:
    """Names the class."""
    (class_folders / "cat").mkdir()
    project.configure(source="folder", root=str(class_folders))
    assert f"{class_folders}/cat: the class folder is empty; add images to it or remove it" in refused("fetch")


def test_an_empty_class_in_a_bucket(project: Any, refused: Any, s3: Any) -> None:
    """Names the class by its address."""
    s3.create_bucket(Bucket="half")
    s3.put_object(Bucket="half", Key="cat/")
    s3.put_object(Bucket="half", Key="dog/1.png", Body=b"x")
    project.configure(source="s3", root="s3://half")
    assert "s3://half/cat: the class folder is empty" in refused("fetch")


def test_a_file_that_is_no_image(project: Any, refused: Any, class_folders: Path) -> None:
    """Names the file; nothing is skipped silently."""
    (class_folders / "1" / "notes.txt").write_text("to do")
    project.configure(source="folder", root=str(class_folders))
    assert (
        f"{class_folders}/1/notes.txt is not an image in one of the formats PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM; replace or remove it\n"
        in refused("fetch")
    )


def test_a_file_beside_the_class_folders(project: Any, refused: Any, class_folders: Path) -> None:
    """It belongs to no class."""
    (class_folders / "labels.csv").touch()
    project.configure(source="folder", root=str(class_folders))
    assert f"{class_folders}/labels.csv lies beside the class folders; move it" in refused("fetch")


def test_a_folder_in_a_class_folder(project: Any, refused: Any, class_folders: Path) -> None:
    """Deeper levels have no meaning here."""
    (class_folders / "1" / "more").mkdir()
    project.configure(source="folder", root=str(class_folders))
    assert f"{class_folders}/1/more is a folder; a class folder holds images only" in refused("fetch")


def test_no_credentials(project: Any, refused: Any, no_aws: None) -> None:
    """Says which variables to set."""
    project.configure(source="s3", root="s3://bucket/images")
    assert "needs credentials and there are none, or only a part; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and" in refused("fetch")


def test_no_such_bucket(project: Any, refused: Any, s3: Any, s3_server: str) -> None:
    """Names bucket and endpoint."""
    project.configure(source="s3", root="s3://no-such-bucket/images")
    assert f"s3://no-such-bucket/images at {s3_server} refuses: NoSuchBucket: there is no such bucket" in refused("fetch")


@pytest.mark.parametrize("name", ["png", "jpg", "bmp", "tif"])
def test_a_truncated_image(project: Any, refused: Any, class_folders: Path, name: str) -> None:
    """Its header is right, so that only decoding finds it out."""
    path = class_folders / "2" / f"cut.{name}"
    Image.effect_noise((64, 64), 90).save(path)
    truncate(path)
    project.fetch(root=str(class_folders), image_size=8, **FOLDER)
    message = refused("prepare")
    assert f"{project.downloads}/2/cut.{name} " in message
    assert "replace or remove it under data.root, then run 'dvc repro -f fetch' and then 'dvc repro'" in message


def test_an_image_that_was_damaged_after_it_was_fetched(project: Any, refused: Any, class_folders: Path) -> None:
    """Its hash gives it away, even where it would still decode."""
    project.fetch(root=str(class_folders), **FOLDER)
    Image.new("L", (8, 8)).save(project.downloads / "0" / "0.png")
    assert f"{project.downloads}/0/0.png is not the file that was fetched" in refused("prepare")


def test_a_class_with_one_image(project: Any, refused: Any, class_folders: Path) -> None:
    """It cannot be in train, val and test."""
    (class_folders / "cat").mkdir()
    Image.new("L", (8, 8)).save(class_folders / "cat" / "only.png")
    project.fetch(root=str(class_folders), **FOLDER)
    assert "folder, training images: class 'cat' has 1 image and needs at least 3, one for each split" in refused("prepare")


def test_images_of_different_sizes(project: Any, refused: Any, class_folders: Path) -> None:
    """Names two that differ, and the setting that makes them one size."""
    Image.new("L", (9, 7)).save(class_folders / "1" / "z.png")
    project.fetch(root=str(class_folders), **FOLDER)
    assert "1/z.png is 9x7 pixels but " in (message := refused("prepare"))
    assert "0/0.png is 8x8; set data.image_size to resize them all, or make them one size" in message


def test_an_empty_file(project: Any, refused: Any, class_folders: Path) -> None:
    """A file of 0 bytes is called one."""
    (class_folders / "1" / "z.jpg").touch()
    project.configure(root=str(class_folders), **FOLDER)
    assert "1/z.jpg is empty (0 bytes); replace or remove it" in refused("fetch")


@pytest.mark.parametrize(
    ("image", "name", "refusal"),
    [
        (Image.new("I;16", (8, 8)), "z.png", "has mode I;16, which has no plain 8-bit form; convert it to 8-bit grey or RGB"),
        (Image.new("F", (8, 8)), "z.tif", "has mode F, which has no plain 8-bit form"),
        (Image.new("CMYK", (8, 8)), "z.jpg", "has mode CMYK, which has no plain 8-bit form"),
        (Image.new("LA", (8, 8), (9, 128)), "z.png", "has transparent pixels; flatten it on the background that you mean"),
    ],
)
def test_images_that_would_lose_by_conversion(
    project: Any, refused: Any, class_folders: Path, image: Image.Image, name: str, refusal: str
) -> None:
    """What becomes of 16 bits, of ink or of transparency is the user's to say."""
    image.save(class_folders / "1" / name)
    project.fetch(root=str(class_folders), **FOLDER)
    assert f"1/{name} {refusal}" in refused("prepare")


def test_an_animation(project: Any, refused: Any, class_folders: Path) -> None:
    """One frame would be taken and the others lost."""
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(class_folders / "1" / "z.gif", save_all=True, append_images=frames[1:])
    project.fetch(root=str(class_folders), **FOLDER)
    assert "1/z.gif has 2 frames; keep one of them as a still image" in refused("prepare")


@pytest.mark.parametrize("limit", [60, 20])
def test_an_image_that_would_fill_the_memory(
    project: Any, refused: Any, class_folders: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Pillow's guard against decompression bombs is heeded from its first warning on; the message says what the image is."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    project.configure(source="folder", root=str(class_folders))
    said = refused("fetch")
    assert f"0/0.png has 64 pixels, and at most {limit} are decoded, lest one image fill the memory; make it smaller or remove it\n" in said


@pytest.mark.parametrize("name", ["x.eps", "x.ico", "x.tga", "x.pcx", "x.pdf", "x.jp2"])
def test_a_format_that_is_not_named(project: Any, refused: Any, class_folders: Path, name: str) -> None:
    """A page description would start another program, whatever the file is called."""
    path = class_folders / "1" / name
    Image.effect_noise((8, 8), 90).save(path)
    path.rename(path.with_suffix(".png"))
    project.configure(source="folder", root=str(class_folders))
    assert "1/x.png is not an image in one of the formats PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM; replace" in refused("fetch")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_a_damaged_tiff_is_refused_in_one_line(
    project: Any, class_folders: Path, capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    """What libtiff says by itself is kept back."""
    path = class_folders / "2" / "x.tif"
    Image.effect_noise((64, 64), 90).save(path, compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes(255 - byte for byte in content[20:60]) + content[60:])
    project.fetch(root=str(class_folders), image_size=8, **FOLDER)
    assert project.command("prepare") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"odn: {project.downloads}/2/x.tif cannot be decoded (")


def test_a_tiff_whose_second_page_is_empty(project: Any, refused: Any, class_folders: Path) -> None:
    """Pillow raises a TypeError, which is no mistake of ours."""
    path = class_folders / "2" / "x.tif"
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (n_entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * n_entries, len(content))
    path.write_bytes(content + struct.pack("<HI", 0, 0))
    project.fetch(root=str(class_folders), **FOLDER)
    assert "2/x.tif cannot be decoded (Missing dimensions): it is truncated or corrupt" in refused("prepare")


@pytest.mark.parametrize("setting", ["test_fraction", "val_fraction"])
def test_a_fraction_that_leaves_an_empty_split(project: Any, refused: Any, class_folders: Path, setting: str) -> None:
    """Names the setting, the sizes that it makes and the range that works."""
    project.fetch(root=str(class_folders), **FOLDER)
    project.configure(root=str(class_folders), **{**FOLDER, setting: 0.01})
    assert f"data.{setting}: 0.01 of " in (message := refused("prepare"))
    assert "and 0, too few for 3 classes; take a fraction from 0.1" in message


def test_more_classes_than_images(project: Any, refused: Any) -> None:
    """Ten classes cannot be learnt from eight images."""
    project.fetch()
    project.configure(max_images=8)
    assert "data.max_images: 8 images are too few for 10 classes" in refused("prepare")
