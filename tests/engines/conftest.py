"""What tests of the pipeline need: a project like a fresh clone, in which `dvc` runs for real."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.__main__ import main
from pipelines.local import last_artifact
from stores import put_store

ROOT = Path(__file__).parents[2]
NOT_COMPARED = {"metrics/latency.json", "metrics/export_latency.json"}  # measured, not computed
SMALL: dict[str, dict[str, Any]] = {  # a trial anneal of depth 1 reads about 38 % of 90 digits, of depth 2 about 57 %
    "data": {"max_images": 300, "val_fraction": 0.3},
    "model": {"width": 0.125},
    "train": {"batch_size": 32, "warmup_epochs": 0.5},
    "growth": {"min_epochs": 2, "max_epochs": 3, "patience": 1},
    "search": {
        "mode": "growth",
        "target": 0.2,
        "cooldown_epochs": 2,
        "cooldown_gain": 1.0,
        "schedule": {"1": {"after": 0}, "2": {"after": 1}},
    },
    "finish": {"epochs": 2},
    "export": {"formats": []},  # importing torch's exporter takes longer than all the rest
}


@dataclass(frozen=True)
class Clone:
    """Be a git repository with the pipeline in it, small settings, and nothing made yet."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the clone; its output comes back as text."""
        done = subprocess.run(command, cwd=self.folder, env=self.variables(), capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def variables(self) -> dict[str, str]:
        """Return the environment of a command: this test's own interpreter first, one thread for networks this small."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
        own["DVC_SITE_CACHE_DIR"] = str(self.folder / ".dvc/tmp/site")  # else it stays on the machine
        return os.environ | own | self.environment

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro` and return the names of the stages that ran."""
        lines = self.run("dvc", "repro", *arguments).stdout.splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=odn", "-c", "user.email=odn@example.com", "commit", "--quiet", "--message", message)

    def change(self, section: str, **settings: Any) -> None:
        """Change settings in params.yaml."""
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        params[section].update(settings)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def read(self, path: str) -> Any:
        """Read a JSON record."""
        return json.loads((self.folder / path).read_text())


def make_clone(folder: Path) -> Clone:
    """Copy what the pipeline consists of into a new git repository."""
    for name in ("dvc.yaml", "data.dvc", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    clone = Clone(folder)
    for section, settings in SMALL.items():
        clone.change(section, **settings)
    clone.run("git", "init", "--quiet")
    clone.commit("A clone")
    return clone


@pytest.fixture(scope="module")
def clone(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Make a clone that the tests of a module share, in the order in which they stand; its `odn` is quick."""
    made = make_clone(tmp_path_factory.mktemp("clone"))
    put_store(made.folder)
    return Clone(made.folder, {"PATH": f"{programs}{os.pathsep}{made.variables()['PATH']}"})


def small_settings() -> dict[str, Any]:
    """Return the project's settings, made small."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in SMALL.items():
        settings[section].update(changes)
    return settings


def files_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_digits(folder: Path, *, n: int = 500) -> None:
    """Write the first digits of the embedded data as pictures, one folder a class."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images[:n], digits.target[:n], strict=True)):
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(path)


def compile_with(*arguments: str) -> int:
    """Run `python -m pipelines compile` in a thread: for each setting of each task kfp looks at the whole stack, and pytest's is deep."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(main, ["compile", *arguments]).result()


def run_compiled(
    folder: Path, *arguments: str, python: Path, monkeypatch: pytest.MonkeyPatch, options: Sequence[str] = ()
) -> dict[str, Path]:
    """Compile the settings in a folder, and run the YAML there; return where its artifacts are."""
    monkeypatch.chdir(folder)
    put_store(folder)
    monkeypatch.setattr(sys, "executable", str(python))
    assert compile_with("--image", "odn-python:test", "--out", "pipeline.yaml", *options) == 0
    assert main(["run-local", "--package", "pipeline.yaml", "--out", "run", *arguments]) == 0
    found = {"search": "check", "model": "truncate", "results": "export", "exported": "export", "dataset": "prepare", "test": "prepare"}
    return {name: last_artifact(folder / "run/run", name, component) for name, component in found.items()}


def require_same_bytes(on_dvc: Clone, artifacts: dict[str, Path]) -> None:
    """Assert that prepared data, depths, verdicts, the model, the exported files, the metrics and the tables are what DVC made."""
    work, results = on_dvc.folder / "work", artifacts["results"]
    kinds = ("pretrained", "depths", "checks", "decisions")
    search = {f"{kind}/{name}": data for kind in kinds for name, data in files_of(work / kind).items()}
    assert files_of(artifacts["search"]) == search
    assert files_of(artifacts["model"]) == files_of(on_dvc.folder / "model")
    for kind in ("metrics", "plots"):
        ours, theirs = files_of(results / kind), files_of(on_dvc.folder / kind)
        assert {name: ours[name] for name in ours if f"{kind}/{name}" not in NOT_COMPARED} == {
            name: theirs[name] for name in theirs if f"{kind}/{name}" not in NOT_COMPARED
        }
    assert files_of(artifacts["exported"]) == files_of(on_dvc.folder / "export")
    prepared = {name: data for name, data in files_of(work / "prepared").items() if not name.startswith("test/")}
    assert files_of(artifacts["dataset"]) == prepared
