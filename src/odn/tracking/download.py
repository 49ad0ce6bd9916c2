"""Bring a registered model back from MLflow, with the very bytes that were certified."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from odn.errors import TrackingError
from odn.files import new_folder, sha256_of
from odn.tracking.connection import AwayError, Connection, answering, connect, failures
from odn.tracking.place import tracking_place

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

REFERENCE = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")
RUN = re.compile(r"^[0-9A-Za-z][0-9A-Za-z-]*$")
RUN_TAG = "odn.kfp.run."  # and the id of the Kubeflow run that registered the version


@dataclass(frozen=True)
class Downloaded:
    """Say what was brought, and where it is."""

    name: str
    version: str
    folder: Path
    weights_sha256: str


def download_model(reference: str, *, folder: Path) -> Downloaded:
    """Bring models:/NAME@ALIAS, models:/NAME/VERSION, or what a Kubeflow run registered, into folder/NAME, whole or not at all.

    Raises:
        TrackingError: the store cannot be reached, knows no such model, or gives other weights than were registered.
    """
    place = tracking_place()
    connection = connect(place)
    try:
        with answering(place):
            version = find_reference(connection, reference)
            return _download(connection, version, folder=folder / version.name)
    except failures() as error:
        raise AwayError(place, error) from None


def find_reference(connection: Connection, reference: str) -> "ModelVersion":
    """Return the version that a reference stands for.

    Raises:
        TrackingError: it is no reference, or the store knows no such model.
        Exception: one of `failures()`.
    """
    from mlflow.exceptions import MlflowException

    client, shown = connection.client, connection.place.shown
    match = REFERENCE.match(reference)
    if match is None and not RUN.match(reference):
        raise TrackingError(f"expected a run's id, models:/NAME@ALIAS or models:/NAME/VERSION; got {reference!r}")
    if match is None:
        found = client.search_model_versions(f"tags.`{RUN_TAG}{reference}` = 'true'", max_results=1)
        if not found:
            raise TrackingError(
                f"MLflow at {shown} knows no model that run {reference} registered; did it end well? Else name models:/NAME@ALIAS"
            )
        return found[0]
    try:
        if match["alias"]:
            return client.get_model_version_by_alias(match["name"], match["alias"])
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise TrackingError(
            f"MLflow at {shown} has no {reference}; see its page 'Model registry' for names, versions and aliases"
        ) from None


def _download(connection: Connection, version: "ModelVersion", *, folder: Path) -> Downloaded:
    with tempfile.TemporaryDirectory() as scratch, new_folder(folder) as final:
        connection.client.download_artifacts(str(version.run_id), "model", scratch)
        digest = sha256_of(Path(scratch) / "model" / "weights.safetensors")
        if digest != version.tags.get("odn.weights_sha256"):
            raise TrackingError(
                f"{version.name} version {version.version}: the weights in MLflow's artifacts are not those that were registered; "
                "the search was registered again with other weights, or the store is damaged"
            )
        for path in sorted((Path(scratch) / "model").iterdir()):
            path.replace(final / path.name)
    return Downloaded(version.name, str(version.version), folder, digest)
