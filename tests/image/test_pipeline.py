"""The whole pipeline in the image, container by container: what comes out is what processes of this machine give."""

import json
import os
from pathlib import Path

import pytest
import yaml

from engines.conftest import NOT_COMPARED, files_of, small_settings
from odn.files import sha256_of
from pipelines.__main__ import main
from pipelines.local import last_artifact

FIRST_WORDS = {
    "prepare": "# Images",
    "train": "# Depth 1",
    "check": "# Depths",
    "truncate": "# Depths",
    "evaluate": "# On test",
    "export": "# Export",
}


@pytest.fixture(scope="module")
def image() -> str:
    """Name the image to test."""
    name = os.environ.get("ODN_IMAGE")
    assert name, "ODN_IMAGE names no image; run 'make image test-image'"
    return name


@pytest.fixture
def folder(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compile small settings for the image in a folder of their own, which the image's user may enter."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_settings()))
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["compile", "--image", image, "--out", "pipeline.yaml"]) == 0
    return tmp_path


def test_the_image_gives_what_this_machine_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data, depths, verdicts, model, metrics and tables are byte for byte the same, and every step left its page."""
    for out, options in (("image", ["--docker"]), ("here", [])):
        assert main(["run-local", "--package", "pipeline.yaml", "--out", out, *options]) == 0, capsys.readouterr()
    made = {"dataset": "prepare", "test": "prepare", "search": "check", "model": "truncate", "results": "export", "exported": "export"}
    for name, component in made.items():
        ours, theirs = (files_of(last_artifact(folder / out / "run", name, component)) for out in ("image", "here"))
        for measured in NOT_COMPARED:
            ours.pop(measured, None), theirs.pop(measured, None)
        assert ours == theirs, name
        assert ours, name
    (task,) = (folder / "image/run").glob("*/register")
    registered = json.loads((task / "registration/registration.json").read_text())
    assert registered["aliases"] == ["candidate", "champion"]
    weights = sha256_of(last_artifact(folder / "image/run", "model", "truncate") / "weights.safetensors")
    assert json.loads((task / "registration/registered.json").read_text())["weights_sha256"] == weights
    for component, words in FIRST_WORDS.items():
        assert (task.parent / component / "table").read_text().startswith(words)
    assert (task.parent / "report/page").read_text().startswith("<!doctype html>")


def test_a_container_that_fails_is_said_to_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that a step does not find ends the command with 1, and no later step has run."""
    given = ["data_source=folder", "data_root=gone"]
    assert main(["run-local", "--package", "pipeline.yaml", "--out", "run", "--docker", *given]) == 1
    out = capsys.readouterr()
    assert "odn: data.root: gone" in out.out
    assert "the run failed" in out.err
    assert not list((folder / "run/run").glob("*/train*"))


def test_a_container_that_cannot_start_is_said_to_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that is not there is no success, whatever kfp.local makes of it."""
    missing = (folder / "pipeline.yaml").read_text().replace(os.environ["ODN_IMAGE"], "odn-python:not-there")
    (folder / "missing.yaml").write_text(missing)
    assert main(["run-local", "--package", "missing.yaml", "--out", "run", "--docker"]) == 1
    assert "odn: the run" in capsys.readouterr().err
