"""The final model in the registry: it loads anywhere, is added once, and is champion only when it is better."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odn.errors import MissingInputError, TrackingError
from odn.files import sha256_of, write_json
from odn.stages import register
from odn.tracking.registry import Registration, logged_name
from odn.tracking.standing import standing

CONSUMER = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
five = np.load("images.npy")
model = mlflow.pyfunc.load_model("models:/odn-digits@champion")
import torch
module = mlflow.pytorch.load_model("models:/odn-digits@candidate")
one = module(torch.from_numpy(five[:1])).detach().numpy()
np.savez("answers.npz", five=model.predict(five), one=one)
assert "odn" not in sys.modules
"""


def registered(made: Any) -> Registration:
    """Run the stage on a made-up search."""
    return register.run(
        made.config,
        **made.paths(),
        registered_weights=made.root / "work/registered.json",
        registration=made.root / ".odn/registration.json",
    )


def client() -> Any:
    """Open the default store."""
    from odn.tracking.connection import connect
    from odn.tracking.place import tracking_place

    return connect(tracking_place()).client


def expected(made: Any, images: np.ndarray) -> np.ndarray:
    """Classify images with the network in model/, normalised by hand."""
    import torch

    from odn.models.stored_networks import load_network

    logits = load_network(made.root / "model")((torch.from_numpy(images) / 255 - 0.3) / 0.4)
    return np.asarray(logits.softmax(dim=1).detach())


@pytest.mark.slow
def test_the_model_loads_in_a_fresh_process_in_an_empty_folder(
    store: Path, make_search: Callable[..., Any], images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By pyfunc and by pytorch, without odn, for five images and for one, it gives what the network in model/ gives."""
    made = make_search(store)
    registered(made)
    folder = tmp_path_factory.mktemp("consumer")
    np.save(folder / "images.npy", images)
    command = [sys.executable, "-W", "ignore", "-c", CONSUMER, f"sqlite:///{store}/mlflow.db"]
    subprocess.run(command, cwd=folder, check=True, env={"PATH": "", "HOME": str(folder)}, capture_output=True)
    answers, right = np.load(folder / "answers.npz"), expected(made, images)
    np.testing.assert_allclose(answers["five"], right, atol=1e-5)  # the exported graph may add up in another order
    np.testing.assert_allclose(answers["one"], right[:1], atol=1e-5)


def test_a_version_says_what_it_is(store: Path, make_search: Callable[..., Any]) -> None:
    """Version, tags, description, signature and pinned requirements are those of the model; the record says what became of it."""
    made = make_search(store)
    done = registered(made)
    version = client().get_model_version("odn-digits", done.version)
    assert (version.tags["odn.depth"], version.tags["odn.verdict"], version.tags["odn.test_accuracy"]) == ("2", "target_reached", "0.98")
    assert "pixels from 0 to 255" in version.description
    assert set(version.aliases) == {"candidate", "champion"}
    record = json.loads((store / ".odn/registration.json").read_text())
    assert (record["version"], record["champion"], record["tracking_uri"]) == ("1", True, "sqlite:///mlflow.db")
    requirements = next((store / "mlartifacts/models").glob("*/artifacts/requirements.txt")).read_text()
    assert all("==" in line for line in requirements.split())


@pytest.fixture
def with_export(store: Path, make_search: Callable[..., Any]) -> Any:
    """Give a made-up search whose model has one file of its own."""
    made = make_search(store)
    folder = store / "export"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"what a device runs")
    tested = {"accuracy": 0.98, "low": 0.96, "high": 0.99, "n": 360}
    file = {"format": "onnx", "runtime": "onnxruntime", "file": "model.onnx", "sha256": sha256_of(folder / "model.onnx"), "bytes": 18}
    proved = {"val_accuracy": 0.98, "logit_difference": 1e-6, "mcnemar_p": 1.0, "float_layers": []}
    about = {"format_version": "1", "source": "digits", "model_sha256": sha256_of(store / "model/weights.safetensors")}
    judged = {"data_sha256": made.manifest.sha256, "max_drop": 0.005, "network_val_accuracy": 0.98, "network": tested}
    write_json(folder / "export.json", {**about, **judged, "artifacts": [file | proved | tested], "refused": []})
    return made


def test_exported_files_lie_beside_the_registered_model(with_export: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """MLflow alone brings one by the version's name or its alias; the version says which formats there are; again changes nothing."""
    done = registered(with_export)
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{with_export.root}/mlflow.db")
    try:
        for reference in ("odn-digits/1", "odn-digits@champion"):
            brought = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{reference}/export/model.onnx", dst_path=str(tmp_path_factory.mktemp("device"))
            )
            assert Path(brought).read_bytes() == b"what a device runs"
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    version = client().get_model_version("odn-digits", done.version)
    assert (version.tags["odn.export"], version.tags["odn.export_sha256"]) == ("onnx", sha256_of(with_export.root / "export/export.json"))
    run = client().get_run(done.run_id)
    assert run.data.metrics["export/onnx/bytes"] == 18
    assert registered(with_export).version == done.version


def test_files_of_another_model_are_not_registered(with_export: Any) -> None:
    """They are left from an earlier search."""
    path = with_export.root / "export/export.json"
    write_json(path, {**json.loads(path.read_text()), "model_sha256": "0" * 64})
    version = client().get_model_version("odn-digits", registered(with_export).version)
    assert "odn.export" not in version.tags


def test_registering_again_adds_no_version(store: Path, make_search: Callable[..., Any]) -> None:
    """The same weights of the same search keep their version, and its champion stays champion."""
    made = make_search(store)
    first, again = registered(made), registered(made)
    assert (first.version, again.version, again.champion) == ("1", "1", True)
    assert len(client().search_model_versions("name = 'odn-digits'")) == 1


def test_a_rerun_mends_a_registration_that_broke_off(store: Path, make_search: Callable[..., Any]) -> None:
    """Aliases that were not set any more are set by the next run."""
    made = make_search(store)
    registered(made)
    for alias in ("candidate", "champion"):
        client().delete_registered_model_alias("odn-digits", alias)
    assert registered(made).champion
    assert set(client().get_model_version("odn-digits", "1").aliases) == {"candidate", "champion"}


def test_the_newest_is_candidate_and_the_better_one_champion(store: Path, make_search: Callable[..., Any], tmp_path: Path) -> None:
    """A less accurate second model becomes candidate; the first stays champion, and the reason is in words."""
    registered(make_search(store / "first", test_accuracy=0.98))
    second = registered(make_search(store / "second", test_accuracy=0.97, seed=1))
    assert (second.version, second.champion, second.previous_champion, second.aliases) == ("2", False, "1", ("candidate",))
    assert second.reason == "not more accurate: 97.00% on test against 98.00% of version 1"
    model = client().get_registered_model("odn-digits")
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"candidate": "2", "champion": "1"}


def test_a_search_that_is_not_evaluated_is_not_registered(store: Path, make_search: Callable[..., Any]) -> None:
    """The stage that is missing is named."""
    with pytest.raises(MissingInputError, match="dvc repro evaluate"):
        registered(make_search(store, finished=False))


def test_a_server_that_is_away_leaves_nothing_behind(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No record of a registration is written that did not happen."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="dvc repro register"):
        registered(make_search(store))
    assert not (store / ".odn/registration.json").exists()


def test_a_version_that_was_deleted_is_known_to_be_gone(store: Path) -> None:
    """A sqlite store is looked into, with the aliases that it has now; a server is not asked."""
    weights, there = (
        "a" * 64,
        {"name": "m", "version": "1", "tracking_uri": "sqlite:///mlflow.db", "champion": True, "aliases": ["champion"]},
    )
    assert standing(there, weights_sha256=weights) == (there, "gone")
    client().create_registered_model("m")
    client().create_model_version("m", source=str(store), tags={"odn.weights_sha256": weights})
    client().set_registered_model_alias("m", "candidate", "1")
    now, stands = standing(there, weights_sha256=weights)
    assert (now["aliases"], now["champion"], now["reason"], stands) == (("candidate",), False, "the alias was moved since", "there")
    assert standing(there, weights_sha256="b" * 64)[1] == "gone"  # of a store that was made anew
    assert standing({**there, "tracking_uri": "http://127.0.0.1:9"}, weights_sha256=weights)[1] == "unasked"
    client().delete_model_version("m", "1")
    assert standing(there, weights_sha256=weights)[1] == "gone"
    (store / "mlflow.db").write_text("no database")
    assert standing(there, weights_sha256=weights)[1] == "unasked"


def test_a_backbone_of_a_library_has_a_name_that_mlflow_takes() -> None:
    """Neither the slash of timm/NAME nor the dot of its tag nor a colon stands in it."""
    assert logged_name("timm/vit_tiny_patch16_224.augreg_in21k", "depth-2") == "timm-vit_tiny_patch16_224-augreg_in21k-depth-2"
    assert logged_name("resnet18", "rung-2") == "resnet18-rung-2"
    assert logged_name("module:mine.made:build", "depth-1") == "module-mine-made-build-depth-1"
