"""Log a classifier, and find or make its version in the registry: what every way of registering a model shares."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from odn.data.dataset import Manifest
from odn.tracking.connection import Connection, import_mlflow

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from odn.models.network import DepthNetwork

Log = Callable[[str, str], str]  # (name of the logged model, digest of its weights) → its id; called within its run

EXAMPLE_IMAGES = 2  # torch.export fixes a batch of one, and lets any other vary


def log_classifier(network: "DepthNetwork", *, manifest: Manifest) -> Log:
    """Return what logs the network, with the normalisation of its data inside, as a torch export: no pickle, and no odn to load it."""

    def log(name: str, weights_sha256: str) -> str:
        mlflow = import_mlflow()
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        from odn.tracking.served import PixelClassifier

        shape = (manifest.channels, manifest.height, manifest.width)
        example = np.random.default_rng(0).integers(0, 256, (EXAMPLE_IMAGES, *shape)).astype(np.float32)
        pixels, probabilities = np.dtype(np.float32), np.dtype(np.float32)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(pixels, (-1, *shape), name=None)]),
            outputs=Schema([TensorSpec(probabilities, (-1, manifest.n_classes), name=None)]),
        )
        metadata: dict[str, Any] = {"input": "pixels 0..255 (N, C, H, W)", "output": "probabilities (N, K)"}
        info = mlflow.pytorch.log_model(
            PixelClassifier(network, mean=manifest.mean, std=manifest.std).eval(),
            name=name,
            signature=signature,
            input_example=example,
            pip_requirements=[f"{package}=={installed(package).partition('+')[0]}" for package in ("mlflow", "numpy", "torch")],
            metadata=metadata | {"classes": list(manifest.classes)},
            tags={"odn.weights_sha256": weights_sha256},
            serialization_format="pt2",
        )
        return str(info.model_id)

    return log


def logged(connection: Connection, log: Log, *, run_id: str, name: str, weights_sha256: str) -> str:
    """Log a model in a run, and return the id that it got."""
    mlflow = import_mlflow()
    with as_default_store(connection), mlflow.start_run(run_id=run_id):
        return log(name, weights_sha256)


def registered_model(connection: Connection, name: str, *, description: str) -> "RegisteredModel":
    """Return the registered model, made where it is missing."""
    from mlflow.exceptions import MlflowException

    try:
        return connection.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        return connection.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return connection.client.get_registered_model(name)  # another process was quicker


def find_version(connection: Connection, name: str, identity: Mapping[str, str]) -> "ModelVersion | None":
    """Return the first version of a registered model that has these tags."""
    conditions = [f"name = '{name}'", *(f"tags.`{key}` = '{value}'" for key, value in identity.items())]
    found = connection.client.search_model_versions(" and ".join(conditions))
    return min(found, key=lambda version: int(version.version), default=None)


def new_version(
    connection: Connection, name: str, *, model_id: str, run_id: str, description: str, tags: Mapping[str, str], identity: Mapping[str, str]
) -> "ModelVersion":
    """Make a version of a logged model; of two that are made at once of one `identity`, the later is deleted again."""
    client = connection.client
    made = client.create_model_version(
        name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, description=description, tags={**tags, **identity}
    )
    first = find_version(connection, name, identity) or made
    if str(first.version) != str(made.version):
        client.delete_model_version(name, str(made.version))
        client.delete_logged_model(model_id)
    return first


def tag_version(connection: Connection, version: "ModelVersion", tags: Mapping[str, str]) -> None:
    """Set the tags that a version does not have yet, or has otherwise."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            connection.client.set_model_version_tag(version.name, str(version.version), key, value)


@contextlib.contextmanager
def as_default_store(connection: Connection) -> Iterator[None]:
    """Let mlflow's module functions, which know no client, use this store; nothing of it stays behind."""
    mlflow = import_mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(connection.place.address)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
