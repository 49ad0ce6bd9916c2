"""`odn predict`: images in, classes with probabilities out, without torch where there is an ONNX file."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from odn.cli import main
from odn.data.folder import open_folder
from odn.data.single_image import decode_image
from odn.errors import DataError
from serving.onnx_files import CLASSES, expected, metadata, onnx_file

HEAVY = ("torch", "torchvision", "mlflow", "sklearn", "matplotlib", "pandas", "scipy", "boto3", "uvicorn", "onnx")
KINDS = [  # of images that there are
    *((mode, name) for mode in ("L", "1", "RGB", "P", "RGBA", "LA") for name in ("PNG", "TIFF")),
    *((mode, name) for mode in ("L", "RGB") for name in ("JPEG", "WEBP")),
]


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let a command read these bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines of JSON that were printed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_image_gets_the_probabilities_of_the_model(project: Path, images: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON an image, in order, holds each class with its probability, the most probable first."""
    assert main(["predict", "pictures/1.png", "pictures", "--format", "json"]) == 0
    found = lines(capsys)
    assert [line["image"] for line in found] == ["pictures/1.png", *(f"pictures/{n}.png" for n in range(5))]
    given = np.array([[line["probabilities"][name] for name in CLASSES] for line in found[1:]])
    assert np.abs(given - expected(images)).max() < 1e-6  # float32
    assert all(line["class"] == max(line["probabilities"], key=line["probabilities"].get) for line in found)


def test_a_table_shows_the_best_classes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its columns are the image, and the most probable classes."""
    assert main(["predict", "pictures/0.png"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[0] == "pictures/0.png"
    assert set(line.split()[1::2]) == set(CLASSES)


def test_standard_input_is_an_image(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is piped in is decoded as a file would be."""
    standard_input(monkeypatch, Path("pictures/2.png").read_bytes())
    assert main(["predict", "-", "pictures/2.png", "--format", "json"]) == 0
    piped, file = lines(capsys)
    assert piped == {**file, "image": "-"}


def test_standard_input_is_a_list_of_paths(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As `find` prints it, one a line."""
    standard_input(monkeypatch, b"pictures/3.png\npictures/4.png\n")
    assert main(["predict", "-", "--format", "json"]) == 0
    assert [line["image"] for line in lines(capsys)] == ["pictures/3.png", "pictures/4.png"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\0\1\2"])
def test_standard_input_that_is_neither_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing, or bytes of another kind."""
    standard_input(monkeypatch, content)
    assert main(["predict", "-"]) == 2
    assert "neither an image nor a list of paths" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_keeps_no_other_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, the others are predicted, and the command says that it failed."""
    whole = Path("pictures/0.png").read_bytes()
    Path("pictures/1.png").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", "pictures", "gone.png", "--format", "json"]) == 2
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4
    assert [line.split()[1] for line in said.err.splitlines()] == ["pictures/1.png", "gone.png", "2"]


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the way to one; an empty folder of images too."""
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "a.png"]) == 2
    assert "there is no model at model; run 'dvc repro' first" in capsys.readouterr().err
    assert main(["predict", "."]) == 2
    assert "there is no file in ." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"nothing of the kind", "is no ONNX file that ONNX Runtime runs"),
        (onnx_file(about={}), "without odn's metadata"),
        (onnx_file(about={**metadata(), "odn.format_version": "2"}), "format version 2 is not known"),
        (onnx_file(about={**metadata(), "odn.classes": "cat"}), "odn.classes or odn.image is damaged"),
        (onnx_file(about=metadata(image=(1, 28, 28))), "the graph is not as its metadata says"),
        (onnx_file(about=metadata(classes=("cat", "dog"))), "the graph is not as its metadata says"),
        (onnx_file(input_type=1), "the graph is not as its metadata says"),
    ],
)
def test_a_file_that_is_not_of_the_format_is_refused(project: Path, content: bytes, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever says otherwise than it computes would give a wrong class without a word."""
    Path("export/model.onnx").write_bytes(content)
    assert main(["predict", "pictures/0.png"]) == 2
    assert fault in capsys.readouterr().err


def test_nothing_heavy_is_imported(project: Path) -> None:
    """With an ONNX file it starts at once: neither torch nor any other large library is needed on a device."""
    code = "import sys; from odn.cli import main; main(['predict', 'pictures']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stderr.split()} & set(HEAVY) == set()
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize(("mode", "format_name"), KINDS)
def test_an_image_is_decoded_as_prepare_decodes_it(tmp_path: Path, mode: str, format_name: str) -> None:
    """Upright, in the same channels, resized to the same pixels: what val was measured with is what a device gets."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3)).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image = Image.fromarray(pixels).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / name / "one", format_name, **({"exif": exif} if format_name != "TIFF" else {}))
    raw = open_folder(tmp_path, image_size=12)
    (prepared,) = raw.train.read(np.array([0]))
    decoded = decode_image((tmp_path / "a/one").read_bytes(), shown="one", shape=(raw.channels, 12, 12))
    assert np.array_equal(decoded, prepared)


def test_channels_change_only_without_a_loss(tmp_path: Path, images: np.ndarray, png: Any) -> None:
    """Grey is color of equal channels, and the other way round; true color is refused where grey is wanted."""
    grey, color = images[0], np.repeat(images[0], 3, axis=0)
    assert np.array_equal(decode_image(png(grey), shown="it", shape=(3, 8, 8)), color)
    assert np.array_equal(decode_image(png(color), shown="it", shape=(1, 8, 8)), grey)
    color[0] = 7
    with pytest.raises(DataError, match="it is color, and the model takes grey"):
        decode_image(png(color), shown="it", shape=(1, 8, 8))
