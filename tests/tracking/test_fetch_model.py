"""`odn fetch-model` and `--model models:/…`: a registered version's exported file comes whole, checked, and only if it is odn's own."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odn.cli import main
from odn.serving.sources import find_source
from odn.serving.swapping import Served
from odn.tracking.connection import Connection, connect
from odn.tracking.place import tracking_place
from serving.onnx_files import onnx_file

Register = Callable[..., str]


@pytest.fixture
def register(store: Path) -> Register:
    """Give a function that registers a version with an artifact set, as `register` does, makes it champion, and returns its number."""
    connection: Connection = connect(tracking_place())
    connection.client.create_registered_model("digits")

    def make(*, seed: int, digest: str = "", **changed: Any) -> str:
        client, files = connection.client, {"model.onnx": onnx_file(seed=seed), "model.int8.onnx": onnx_file(seed=seed + 100)}
        artifacts = [
            {"format": name, "file": file, "sha256": hashlib.sha256(files[file]).hexdigest(), "bytes": len(files[file]), "accuracy": 0.9}
            for name, file in (("onnx", "model.onnx"), ("onnx-int8", "model.int8.onnx"))
        ]
        folder = store / f"made-{seed}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        record = json.dumps({"model_sha256": "b" * 64, "artifacts": artifacts, **changed})
        (folder / "export.json").write_text(record)
        model_id = client.create_logged_model(connection.experiment_id).model_id
        client.log_model_artifacts(model_id, str(folder), "export")
        client.finalize_logged_model(model_id, "READY")
        tags = {"odn.export_sha256": digest or hashlib.sha256(record.encode()).hexdigest()}
        version = client.create_model_version("digits", source=f"models:/{model_id}", model_id=model_id, tags=tags)
        client.set_registered_model_alias("digits", "champion", version.version)
        return str(version.version)

    return make


def test_a_file_comes_whole_and_is_not_written_twice(store: Path, register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the bytes that were certified, under its own name or one's own; what is there already stays."""
    register(seed=1)
    assert main(["fetch-model", "models:/digits@champion", "--format", "onnx-int8", "--out", "device/net.onnx"]) == 0
    assert (store / "device/net.onnx").read_bytes() == onnx_file(seed=101)
    assert "net.onnx: onnx-int8 of digits version 1" in capsys.readouterr().out
    assert main(["fetch-model", "models:/digits@champion", "--out", "other/"]) == 0
    assert (store / "other/model.onnx").read_bytes() == onnx_file(seed=1)
    assert main(["fetch-model", "models:/digits/1"]) == 0
    assert (store / "model.onnx").read_bytes() == onnx_file(seed=1)
    assert main(["fetch-model", "models:/digits/1"]) == 0
    assert "is there already" in capsys.readouterr().out


def test_a_newer_champion_takes_the_place_of_the_older(store: Path, register: Register) -> None:
    """The device's file is replaced, as odn wrote it; another file of that name is left alone."""
    for seed in (1, 2):
        register(seed=seed)
        assert main(["fetch-model", "models:/digits@champion"]) == 0
        assert (store / "model.onnx").read_bytes() == onnx_file(seed=seed)
    (store / "model.onnx").write_text("mine")
    assert main(["fetch-model", "models:/digits@champion"]) == 2
    assert (store / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"artifacts": []}, "no artifact of the format onnx; there are: none"),
        ({"artifacts": [{"format": "onnx", "file": "model.onnx", "sha256": "c" * 64}]}, "is not the file that was registered"),
        ({"artifacts": [{"format": "onnx", "file": "../model.onnx", "sha256": "c" * 64}]}, "names a file outside its folder"),
        ({"artifacts": 5}, "export/export.json in MLflow's artifacts is damaged"),
        ({"digest": "c" * 64}, "export/export.json in MLflow's artifacts is not the file that was registered"),
    ],
)
def test_what_is_not_the_certified_file_is_refused(
    store: Path, register: Register, changed: dict[str, Any], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written where the record or the file is another."""
    register(seed=1, **changed)
    assert main(["fetch-model", "models:/digits@champion", "--out", "device/model.onnx"]) == 2
    assert fault in capsys.readouterr().err
    assert not (store / "device").exists()


@pytest.mark.parametrize(
    ("reference", "fault"), [("models:/digits@nobody", "has no models:/digits@nobody"), ("digits", "knows no model that run digits")]
)
def test_a_version_that_is_not_there_is_refused(register: Register, reference: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what a reference looks like."""
    assert main(["fetch-model", reference]) == 2
    assert fault in capsys.readouterr().err


def test_a_version_without_exported_files_is_refused(register: Register, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a search leaves it that was registered before there was an export."""
    connection = connect(tracking_place())
    connection.client.create_model_version("digits", source=str(store))
    assert main(["fetch-model", "models:/digits/1"]) == 2
    assert "has no exported files" in capsys.readouterr().err


def test_a_new_champion_is_served_in_the_place_of_the_old(register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    """What serves models:/NAME@champion follows the alias, and answers under the registry's name and version."""
    register(seed=1)
    served = Served(find_source("models:/digits@champion"), threads=1)
    served.look()
    assert (served.loaded.name, served.loaded.version) == ("digits", "1")
    register(seed=2)
    served.look()
    assert served.loaded.version == "2"
    assert "version 2 is served now, in the place of 1" in capsys.readouterr().err
