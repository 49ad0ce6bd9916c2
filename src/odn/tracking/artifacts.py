"""Bring one exported file of a registered version from MLflow: the very bytes that were certified.

The files lie beside the logged model, models:/NAME/VERSION/export/FILE, with export.json, which lists them; a tag of the version holds its
digest.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from odn.errors import TrackingError
from odn.files import sha256_of
from odn.records import Part, Sha256, parse_record
from odn.tracking.connection import AwayError, Connection, answering, connect, failures, import_mlflow
from odn.tracking.download import find_reference
from odn.tracking.place import tracking_place

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FOLDER, LISTING = "export", "export.json"
LISTING_TAG = "odn.export_sha256"  # of a version: the digest of its export.json


@dataclass(frozen=True, kw_only=True)
class Artifact(Part):
    """Name one exported file."""

    format: str
    file: str
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Listing(Part):
    """List what was exported of a model: a part of export.json."""

    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True)
class Brought:
    """Hold an exported file, and say which version it is of."""

    name: str
    version: str
    artifact: Artifact
    content: bytes


@dataclass(frozen=True)
class Registered:
    """Ask the registry again and again what a reference such as models:/NAME@champion stands for."""

    connection: Connection
    reference: str

    @classmethod
    def connected(cls, reference: str) -> Self:
        """Connect to the store that the environment names.

        Raises:
            TrackingError: the store cannot be reached, or knows no such model.
        """
        found = cls(connect(tracking_place()), reference)
        found.version()
        return found

    def version(self) -> "ModelVersion":
        """Return the version that the reference stands for now.

        Raises:
            TrackingError: the store cannot be reached, or knows no such model any more.
        """
        place = self.connection.place
        try:
            with answering(place, tells=False):
                return find_reference(self.connection, self.reference)
        except failures() as error:
            raise AwayError(place, error, again="the same command") from None

    def bring(self, version: "ModelVersion", *, format_name: str) -> Brought:
        """Bring a version's file of a format, whole and checked.

        Raises:
            TrackingError: it has no such file, or the file is not the one that was certified.
        """
        place = self.connection.place
        try:
            with answering(place, tells=False), tempfile.TemporaryDirectory() as scratch:
                return self._bring(version, format_name, Path(scratch))
        except failures() as error:
            raise AwayError(place, error, again="the same command") from None

    def _bring(self, version: "ModelVersion", wanted: str, scratch: Path) -> Brought:
        shown = f"{version.name} version {version.version}"
        listing = self._listing(version, scratch, shown=shown)
        found = next((one for one in listing.artifacts if one.format == wanted), None)
        if found is None:
            there = ", ".join(one.format for one in listing.artifacts) or "none"
            raise TrackingError(f"{shown} has no artifact of the format {wanted}; there are: {there}")
        if Path(found.file).name != found.file:
            raise TrackingError(f"{shown}: {LISTING} names a file outside its folder, {found.file!r}; the store is damaged")
        path = self._download(version, found.file, scratch)
        self._require(path, found.sha256, shown=shown)
        return Brought(str(version.name), str(version.version), found, path.read_bytes())

    def _listing(self, version: "ModelVersion", scratch: Path, *, shown: str) -> Listing:
        if LISTING_TAG not in version.tags:
            raise TrackingError(f"{shown} has no exported files; export and register it with 'dvc repro'")
        path = self._download(version, LISTING, scratch)
        self._require(path, version.tags[LISTING_TAG], shown=shown)
        try:
            return parse_record(Listing, path.read_bytes())
        except ValueError as error:
            raise TrackingError(f"{shown}: {FOLDER}/{LISTING} in MLflow's artifacts is damaged: {error}") from None

    def _require(self, path: Path, digest: str, *, shown: str) -> None:
        if sha256_of(path) != digest:
            raise TrackingError(
                f"{shown}: {FOLDER}/{path.name} in MLflow's artifacts is not the file that was registered; the store is damaged, "
                "or 'dvc repro register' broke off: run it again"
            )

    def _download(self, version: "ModelVersion", name: str, scratch: Path) -> Path:
        address = self.connection.place.address
        uri = f"models:/{version.name}/{version.version}/{FOLDER}/{name}"
        download = import_mlflow().artifacts.download_artifacts
        return Path(download(artifact_uri=uri, dst_path=str(scratch), tracking_uri=address, registry_uri=address))
