"""Fetch and prepare on the embedded digits: complete, exact, reproducible, cheap, and all or nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odn.config import changed
from odn.data.dataset import read_manifest
from odn.errors import ConfigError, DataError, MissingInputError
from odn.files import MANIFEST, sha256_of
from odn.stages import prepare

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "PIL", "mlflow", "boto3", "matplotlib", "kornia")


def test_every_digit_is_in_exactly_one_split(project: Any, digits: Any) -> None:
    """The three splits together are the 1,797 images, each with its own label and its 0..16 scaled to 0..255."""
    project.make()
    images, labels = digits
    scaled = np.floor(images * (255 / 16) + 0.5).astype(np.uint8)
    splits = [project.split(name) for name in ("train", "val", "test")]
    found = sorted((image.tobytes(), label) for split in splits for image, label in zip(split.images, split.labels, strict=True))
    assert found == sorted((image.tobytes(), label) for image, label in zip(scaled, labels, strict=True))


def test_the_manifest_describes_what_was_written(project: Any) -> None:
    """Counts, digests, shape, mean and std are those of the arrays; it reads back equal."""
    manifest = project.make()
    assert read_manifest(project.prepared / "dataset.json") == manifest
    assert (manifest.source, manifest.n_classes, manifest.channels, manifest.height, manifest.width) == ("digits", 10, 1, 8, 8)
    for name in ("train", "val", "test"):
        split, folder = project.split(name), project.prepared / name
        assert manifest.counts[name] == {"total": len(split), "per_class": np.bincount(split.labels).tolist()}
        assert manifest.sha256[name] == sha256_of(folder / "images.npy", folder / "labels.npy")
    pixels = project.split("train").images / 255
    assert (manifest.mean, manifest.std) == (pytest.approx([pixels.mean()], rel=1e-12), pytest.approx([pixels.std()], rel=1e-12))


def test_sizes_are_the_fractions_asked_for(project: Any) -> None:
    """A fifth of 1,797 is test; 15 % of what is left is val."""
    manifest = project.make()
    assert {name: counts["total"] for name, counts in manifest.counts.items()} == {"train": 1222, "val": 216, "test": 359}


def test_the_same_seed_writes_the_same_bytes(project: Any, tmp_path: Path) -> None:
    """Run twice, every file is equal; another seed draws other images."""
    first = project.make()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert project.make() == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert project.prepare(seed=1).sha256 != first.sha256


def test_the_test_split_does_not_depend_on_val_or_max_images(project: Any) -> None:
    """Changing how train and val are drawn leaves the images that are reported on alone."""
    manifest = project.make()
    other = project.prepare(val_fraction=0.3, max_images=500)
    assert other.sha256["test"] == manifest.sha256["test"]


def test_max_images_keeps_a_stratified_part(project: Any) -> None:
    """200 training images: 170 to fit and 30 to choose by, three of each class."""
    manifest = project.make(max_images=200)
    assert (manifest.counts["train"]["total"], manifest.counts["val"]) == (170, {"total": 30, "per_class": [3] * 10})


def test_max_images_beyond_what_there_is_keeps_all(project: Any) -> None:
    """A generous limit is no limit."""
    assert project.make(max_images=10**6).sha256 == project.prepare().sha256


def test_digits_import_no_heavy_library(project: Any) -> None:
    """Both stages run without torch, scikit-learn and their kin, whose imports take seconds."""
    project.configure()
    program = (
        "import sys; from odn.cli import main; codes = [main(sys.argv[1:4]), main(['prepare', *sys.argv[2:4], '--data', 'downloads'])]; "
    )
    program += f"print(codes, [name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", program, "fetch", "--params", "params.yaml"]
    result = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[0, 0] []"


def test_fetch_copies_the_embedded_file(project: Any) -> None:
    """downloads/ holds scikit-learn's own file and the list of its hash."""
    fetched = project.fetch()
    assert (fetched.source, fetched.origin, fetched.n_files, fetched.size_bytes) == ("digits", "scikit-learn", 1, 57523)
    assert sorted(path.name for path in project.downloads.iterdir()) == [MANIFEST, "SHA256SUMS", "digits.csv.gz"]


def test_digits_of_another_content_are_refused(project: Any) -> None:
    """A file of the right name under data.root is held to the known hash, and nothing is left behind."""
    project.raw.mkdir()
    (project.raw / "digits.csv.gz").write_bytes(b"not it")
    with pytest.raises(
        DataError, match=r"digits: digits.csv.gz from .* has sha256 .*, expected 09f66e6debde…: damaged, or another version"
    ):
        project.fetch(root=str(project.raw))
    assert not project.downloads.exists()


def test_truncated_raw_data_is_refused(project: Any) -> None:
    """A file cut after it was fetched stops prepare before anything is written."""
    project.fetch()
    path = project.downloads / "digits.csv.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"digits.csv.gz is not the file that was fetched .*; run 'dvc repro -f fetch'"):
        project.prepare()
    assert not project.prepared.exists()


def test_a_failure_leaves_what_was_there(project: Any) -> None:
    """A refused setting changes no file of an earlier run, and leaves no temporary one."""
    project.make()
    before = sorted((path, path.stat().st_mtime_ns) for path in project.prepared.rglob("*"))
    with pytest.raises(ConfigError, match="data.val_fraction: 0.001 of 1438 images parts them into 1437 and 1"):
        project.prepare(val_fraction=0.001)
    assert sorted((path, path.stat().st_mtime_ns) for path in project.prepared.rglob("*")) == before


def test_another_sources_files_are_not_read(project: Any) -> None:
    """After data.source is changed by hand, prepare asks for the new files instead of guessing."""
    project.fetch()
    with pytest.raises(MissingInputError, match=r"holds no MNIST/raw/train-images-idx3-ubyte, a file of MNIST; run 'dvc repro prepare'"):
        project.prepare(source="mnist")


def test_prepare_before_fetch_names_the_command(project: Any) -> None:
    """No raw data at all."""
    with pytest.raises(MissingInputError, match=r"raw data is missing: no .*SHA256SUMS; run 'dvc repro prepare', which fetches it first"):
        project.prepare()


def test_a_normalisation_that_the_backbone_brings_is_told(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It is chosen by itself where there are weights: a line names the backbone and the setting."""
    project.fetch()
    outside = {"model.backbone": "timm/tf_efficientnet_lite0", "model.weights": "lite0.safetensors", "search.ladder": "prefix"}
    splits = {split: project.prepared / split for split in ("train", "val", "test")}
    places = {"data": project.downloads, "manifest": project.prepared / "dataset.json", "progress": project.progress}
    manifest = prepare.run(changed(project.configure(), outside), **places, **splits)
    assert (manifest.mean, manifest.std) == ((0.5,), (0.5,))
    said = "odn: images are normalised as those that timm/tf_efficientnet_lite0 was trained on (data.normalise: data takes their own)"
    assert said in capsys.readouterr().err
