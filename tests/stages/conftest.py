"""What tests of the data stages need: a project folder with its settings, and tiny raw data made from the embedded digits."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from odn import cli
from odn.config import Config, make_config
from odn.data.dataset import Manifest, Split, read_split
from odn.data.official import digits_file
from odn.stages import fetch, prepare

PARAMS = Path(__file__).parents[2] / "params.yaml"


@dataclass(frozen=True)
class Project:
    """Be a folder with a params.yaml, and run the two data stages in it."""

    folder: Path

    def configure(self, *, seed: int = 0, **data: Any) -> Config:
        """Write params.yaml: the repository's own, with other data settings."""
        settings = yaml.safe_load(PARAMS.read_text())
        settings["seed"] = seed
        settings["data"].update({"source": "digits", "root": None, "image_size": None, "max_images": None, "val_fraction": 0.15})
        settings["data"].update({"test_fraction": 0.2, **data})
        (self.folder / "params.yaml").write_text(yaml.safe_dump(settings))
        return make_config(settings)

    @property
    def raw(self) -> Path:
        """Return the folder that a test fills with raw data."""
        return self.folder / "raw"

    @property
    def downloads(self) -> Path:
        """Return what fetch writes and prepare reads."""
        return self.folder / "downloads"

    @property
    def prepared(self) -> Path:
        """Return what prepare writes."""
        return self.folder / "work" / "prepared"

    @property
    def progress(self) -> Path:
        """Return where an interrupted prepare is kept."""
        return self.folder / "progress"

    def fetch(self, **data: Any) -> fetch.Fetched:
        """Run the fetch stage on these settings."""
        return fetch.run(self.configure(**data), downloads=self.downloads)

    def prepare(self, *, seed: int = 0, **data: Any) -> Manifest:
        """Run the prepare stage on these settings."""
        paths = {split: self.prepared / split for split in ("train", "val", "test")}
        config = self.configure(seed=seed, **data)
        return prepare.run(config, data=self.downloads, manifest=self.prepared / "dataset.json", progress=self.progress, **paths)

    def make(self, **data: Any) -> Manifest:
        """Run both."""
        self.fetch(**data)
        return self.prepare(**data)

    def split(self, name: str) -> Split:
        """Open a prepared split."""
        return read_split(self.prepared / name)

    def command(self, name: str) -> int:
        """Run `odn fetch` or `odn prepare` on the settings that are there, and return its exit code."""
        prepare = ["--data", self.downloads, "--prepared", self.prepared, "--progress", self.progress]
        paths = ["--downloads", self.downloads] if name == "fetch" else prepare
        return cli.main([name, "--params", str(self.folder / "params.yaml"), *map(str, paths)])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a project folder."""
    return Project(tmp_path)


@pytest.fixture(scope="module")
def quick_exports(programs: Path) -> Iterator[None]:
    """Measure the memory of exported files in processes that start at once."""
    from odn.export import measuring

    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(measuring, "sys", SimpleNamespace(executable=str(programs / "python")))
        yield


@pytest.fixture(scope="session")
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Give the embedded digits: images (1797, 8, 8) of 0..16, labels (1797,)."""
    rows = np.loadtxt(digits_file(), delimiter=",", dtype=np.int64)
    return rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1]


@pytest.fixture
def class_folders(project: Project, digits: tuple[Any, Any]) -> Path:
    """Write 10 grey PNGs of each of three digits: raw/0, raw/1, raw/2."""
    images, labels = digits
    for label in range(3):
        (project.raw / str(label)).mkdir(parents=True)
        for number, image in enumerate(images[labels == label][:10]):
            Image.fromarray(image * 15).save(project.raw / str(label) / f"{number}.png")
    return project.raw


WriteIdx = Callable[..., None]


@pytest.fixture
def write_idx(project: Project) -> WriteIdx:
    """Write images (N, H, W) and labels (N,) of one split as idx files, the official format of MNIST and its kin."""

    def write(prefix: str, *, images: Any, labels: Any) -> None:
        for array, kind in ((images, "images-idx3-ubyte"), (labels, "labels-idx1-ubyte")):
            path = project.raw / f"{prefix}-{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
            path.write_bytes(header + array.astype(np.uint8).tobytes())

    return write
