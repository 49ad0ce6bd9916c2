"""A model that is not the outcome of a search gets a run, a version and an alias of its own, once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from odn.config import Config, make_config
from odn.data.dataset import Manifest
from odn.errors import TrackingError
from odn.models.architecture import Architecture
from odn.tracking.connection import connect
from odn.tracking.place import tracking_place
from odn.tracking.publish import Model, publish_model
from odn.tracking.registry import Registration
from tracking.conftest import PARAMS

MANIFEST = Manifest(
    source="digits", classes=tuple("0123456789"), channels=1, height=8, width=8, mean=(0.3,), std=(0.4,),
    counts={"train": {"total": 1, "per_class": [1]}}, sha256={"train": "a" * 64},
)  # fmt: skip


def config() -> Config:
    """Return the project's own settings."""
    return make_config(yaml.safe_load(PARAMS.read_text()))


def published(folder: Path, *, seed: int = 0, described: Architecture | None = None, **metrics: float) -> Registration:
    """Register a network that was drawn and not trained."""
    import torch

    from odn.models.network import build
    from odn.models.resnet_shapes import configured
    from odn.models.stored_networks import load_network, save_network
    from odn.tracking.versions import log_classifier

    architecture = described or configured(config(), in_channels=1, n_classes=10, depth=1)
    save_network(build(architecture, torch.Generator().manual_seed(seed)), folder)
    model = Model(
        name="odn-digits-macs-0.3",
        folder=folder,
        log=log_classifier(load_network(folder), manifest=MANIFEST),
        about="a small one",
        description="depth 1",
        metrics={"val_accuracy": 0.9, **metrics},
        tags={"odn.target": "macs<=0.3"},
    )
    return publish_model(model, config=config(), again="'odn specialise'")


def client() -> Any:
    """Open the default store."""
    return connect(tracking_place()).client


def test_a_model_is_registered_once_and_loads_without_odn(store: Path, images: np.ndarray) -> None:
    """The same weights keep their version, whose numbers are brought up to date; the run holds the folder and the settings."""
    import mlflow

    from odn.tracking.versions import as_default_store

    done, again = published(store / "small"), published(store / "small", test_accuracy=0.8)
    assert (done.version, again.version, done.run_id) == ("1", "1", again.run_id)
    assert again.reason == "these weights are version 1 already"
    run, version = client().get_run(done.run_id), client().get_model_version_by_alias("odn-digits-macs-0.3", "candidate")
    assert run.data.metrics == {"val_accuracy": 0.9, "test_accuracy": 0.8}
    assert run.data.params["model.backbone"] == "resnet18"
    assert {file.path for file in client().list_artifacts(done.run_id, "model")} == {"model/architecture.json", "model/weights.safetensors"}
    assert version.tags["odn.target"] == "macs<=0.3"
    with as_default_store(connect(tracking_place())):
        answers = mlflow.pyfunc.load_model("models:/odn-digits-macs-0.3@candidate").predict(images)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_a_transformer_of_timm_takes_any_number_of_images(store: Path, images: np.ndarray) -> None:
    """What MLflow loads holds no number of images fixed, though a class token is put before each one's patches."""
    import mlflow

    from odn.tracking.versions import as_default_store

    small = {"patch_size": 2, "embed_dim": 12, "num_heads": 2, "img_size": 8}
    vit = Architecture(family="timm", name="timm/vit_tiny_patch16_224", arguments=small, in_channels=1, n_classes=10, n_blocks=12, depth=1)
    published(store / "vit", described=vit)
    with as_default_store(connect(tracking_place())):
        model = mlflow.pyfunc.load_model("models:/odn-digits-macs-0.3@candidate")
    whole = model.predict(images)
    assert len(images) > 3
    np.testing.assert_allclose(model.predict(images[:3]), whole[:3], atol=1e-6)  # sums of other batches, in another order


def test_other_weights_are_a_new_version(store: Path) -> None:
    """The newest is the candidate."""
    published(store / "first")
    second = published(store / "second", seed=1)
    assert (second.version, second.reason) == ("2", "new weights")
    assert str(client().get_model_version_by_alias("odn-digits-macs-0.3", "candidate").version) == "2"


def test_a_server_that_is_away_is_told_with_the_way_back(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command to run again is the caller's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="then run 'odn specialise'"):
        published(store / "small")
