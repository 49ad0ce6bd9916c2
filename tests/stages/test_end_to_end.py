"""Your own images, from a folder and from a bucket, through every stage of the search, by the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from engines.conftest import SMALL
from odn import cli
from odn.data.official import digits_file
from odn.storage import upload_folder

PARAMS = Path(__file__).parents[2] / "params.yaml"
CLASSES, IMAGES = 3, 60  # of each class

pytestmark = pytest.mark.usefixtures("quick_exports")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write digits as image files, one folder a class, in three formats."""
    import numpy as np

    rows = np.loadtxt(digits_file(), delimiter=",", dtype=np.int64)
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        (root / f"class {label}").mkdir(parents=True)
        for number, row in enumerate(rows[rows[:, 64] == label][:IMAGES]):
            ending = ("png", "bmp", "tiff")[number % 3]
            pixels = (row[:64].reshape(8, 8) * 255 // 16).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class {label}" / f"{number}.{ending}")
    return root


@pytest.fixture(scope="module")
def from_folder(images: Path, quick_exports: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the stages on the folder of images; give the project's own folder."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        run_all(folder, patch, source="folder", root=str(images))
    return folder


def run_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, augment: dict[str, Any] | None = None, last: str = "show", **data: Any
) -> None:
    """Run every stage but register, or those up to one, in an empty project folder, as `dvc repro` would."""
    monkeypatch.chdir(folder)
    settings = yaml.safe_load(PARAMS.read_text())
    for section, values in SMALL.items():
        settings[section].update(values)
    settings["data"].update({"max_images": None, **data})
    settings["augment"].update(augment or {})
    settings["search"]["target"] = 0.45
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    commands = ["fetch", "prepare --data downloads", "open"]
    commands += [f"{stage} --depth {depth} --after {depth - 1}" for depth in (1, 2) for stage in ("train", "check")]
    commands += ["truncate", "evaluate", "export", "report", "show"]
    for command in commands[: commands.index(last) + 1]:
        assert cli.main(command.split()) == 0


def read(path: Path) -> Any:
    """Read a record."""
    return json.loads(path.read_text())


def test_a_folder_of_images_runs_end_to_end(from_folder: Path) -> None:
    """Class names come from the folders, and a model, a page and a summary come out."""
    n_test = read(from_folder / "metrics/evaluation.json")["n_test"]
    assert n_test == CLASSES * IMAGES / 5
    assert read(from_folder / "model/card.json")["classes"] == ["class 0", "class 1", "class 2"]
    assert "class 1" in (from_folder / "report/report.html").read_text()
    exported = read(from_folder / "export/export.json")
    assert (exported["network"]["n"], exported["artifacts"]) == (n_test, [])  # small settings ask for no format


def test_a_bucket_of_images_gives_the_same_model(
    tmp_path: Path, images: Path, from_folder: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images under s3://bucket/prefix give the same model, byte for byte; no later stage reads them."""
    s3.create_bucket(Bucket="end-to-end")
    upload_folder(images, address="s3://end-to-end/images")
    run_all(tmp_path, monkeypatch, last="truncate", source="s3", root="s3://end-to-end/images")
    weights = Path("model/weights.safetensors")
    assert weights.read_bytes() == (from_folder / weights).read_bytes()


def test_imbalanced_classes_have_balanced_accuracy(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the mean over classes of what is right, and stands beside accuracy in the record, the command, the page and the summary."""
    fewer = shutil.copytree(images, tmp_path / "images")
    for path in sorted((fewer / "class 2").iterdir())[20:]:
        path.unlink()
    augment = {"crop": 0.5, "jitter": 0.2, "trivial": True, "mixup": 0.2, "cutmix": 1.0}
    run_all(tmp_path, monkeypatch, augment=augment, source="folder", root=str(fewer))
    rows = [row.split(",") for row in Path("work/evaluation/predictions.csv").read_text().splitlines()[1:]]
    rates = [[row[1] == row[2] for row in rows if row[1] == str(label)] for label in range(CLASSES)]
    expected = sum(sum(rate) / len(rate) for rate in rates) / CLASSES
    assert read(Path("metrics/evaluation.json"))["test_balanced_accuracy"] == pytest.approx(
        expected, rel=1e-12
    )  # another order of the same sums
    said = f"{expected:.2%}"
    assert f"balanced, the mean over classes, {said}" in Path("report/report.html").read_text()
    shown = " ".join(capsys.readouterr().out.split())
    assert f"balanced {said}, " in shown
    assert f"balanced, the mean over classes, {said}" in shown
