"""Log the final model and register it: `candidate` always, `champion` when it beats the present one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odn.export.artifacts import read_exported
from odn.export.names import RECORD
from odn.files import sha256_of
from odn.records import Record
from odn.tracking.alone import written
from odn.tracking.champion import Contender, decide
from odn.tracking.connection import AwayError, Connection, answering, connect, failures
from odn.tracking.place import tracking_place, why_unreachable
from odn.tracking.record import EXPORT, SearchRecord
from odn.tracking.replay import Replayed, replay
from odn.tracking.schema import made_meanwhile
from odn.tracking.versions import find_version, log_classifier, logged, new_version, registered_model, tag_version
from odn.tracking.words import model_note, version_note

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Registration(Record):
    """Say what became of the model: the content of registration.json."""

    name: str
    version: str
    run_id: str
    tracking_uri: str  # without secrets
    aliases: tuple[str, ...]
    champion: bool
    reason: str
    previous_champion: str | None  # version


def publish(record: SearchRecord, *, tags: Mapping[str, str]) -> Registration:
    """Replay a finished search and register its model, with a cold start as short as two processor cores make it.

    Raises:
        TrackingError: see `replay` and `register_model`.
    """
    place = tracking_place()
    with answering(place):
        unreachable = why_unreachable(place)
    if unreachable is not None:
        raise AwayError(place, unreachable)
    if place.sqlite_file is not None and not place.sqlite_file.exists():
        with made_meanwhile(place.sqlite_file):
            _import_export()
    return register_model(record, replayed=replay(record, tags=tags, place=place), tags=tags)


def _import_export() -> None:
    """Let torch.export import what it needs, which takes as long as the tables of a new store."""
    import torch

    torch.export.export(torch.nn.Identity(), (torch.zeros(1),))


def register_model(record: SearchRecord, *, replayed: Replayed, tags: Mapping[str, str]) -> Registration:
    """Register the model of a finished search; the same weights of the same search keep the version that they have.

    `tags` says where the search comes from (see `provenance`).

    Raises:
        TrackingError: the store cannot be reached or refuses; doing it again mends what is missing.
    """
    place = replayed.place
    connection = connect(place)
    try:
        return written(place, lambda: _register(connection, record, replayed.run_id, tags))
    except failures() as error:
        raise AwayError(place, error) from None


def _register(connection: Connection, record: SearchRecord, run_id: str, tags: Mapping[str, str]) -> Registration:
    client, rule = connection.client, record.config.registry
    registered_model(connection, rule.name, description=model_note(record))
    weights = sha256_of(record.model / "weights.safetensors")
    identity = {"odn.search": record.search_id, "odn.weights_sha256": weights}
    found = find_version(connection, rule.name, identity)
    contender = _contender(record, version=str(found.version) if found else "")
    if found is None:
        model_id = _log_model(connection, record, run_id, weights)
        about = {**tags, **contender.tags(), "odn.depth": str(record.search.depth if record.search else "")}
        made: dict[str, Any] = {"model_id": model_id, "run_id": run_id, "description": version_note(record)}
        found = new_version(connection, rule.name, **made, tags=about, identity=identity)
        contender = _contender(record, version=str(found.version))
    _attach_exports(connection, record, found)
    # Registered again, by another commit or run, the same weights keep where they came from first; what is told anew is added.
    tag_version(connection, found, {name: value for name, value in tags.items() if name not in found.tags})
    present_aliases = {alias: str(version) for alias, version in client.get_registered_model(rule.name).aliases.items()}
    version, previous = contender.version, present_aliases.get("champion")
    present = _contender_of(connection, rule.name, previous)
    decision = decide(contender, present=previous, champion=present, registry=rule)
    aliases = ("candidate", "champion") if decision.champion else ("candidate",)
    for alias in aliases:
        if present_aliases.get(alias) != version:
            client.set_registered_model_alias(rule.name, alias, version)
    return Registration(
        name=rule.name,
        version=version,
        run_id=run_id,
        tracking_uri=connection.place.shown,
        aliases=aliases,
        champion=decision.champion,
        reason=decision.reason,
        previous_champion=previous if previous != version else None,
    )


def _attach_exports(connection: Connection, record: SearchRecord, version: "ModelVersion") -> None:
    """Put the exported files beside the logged model: models:/NAME/VERSION/export/FILE; what is there already stays."""
    folder = record.folders.get(EXPORT)
    if folder is None:
        return
    formats = " ".join(one.format for one in read_exported(folder).artifacts)
    about = {"odn.export": formats, "odn.export_sha256": sha256_of(folder / RECORD)}
    if all(version.tags.get(name) == value for name, value in about.items()):
        return
    model_id = str(version.source).removeprefix("models:/")  # not every store fills in the version's own `model_id`
    connection.client.log_model_artifacts(model_id, str(folder), EXPORT)
    tag_version(connection, version, about)  # last: what breaks off before is done again


def _contender(record: SearchRecord, *, version: str) -> Contender:
    return Contender(
        version=version,
        verdict=record.verdict or "",
        test_accuracy=record.metrics["test_accuracy"],
        size_bytes=int(record.metrics["size_bytes"]),
        test_sha256=record.manifest.sha256["test"],
    )


def _contender_of(connection: Connection, name: str, version: str | None) -> Contender | None:
    if version is None:
        return None
    return Contender.from_tags(version, connection.client.get_model_version(name, version).tags)


def logged_name(backbone: str, kept: str) -> str:
    """Name a logged model: `timm-resnet18-depth-2`, as MLflow allows no slash, colon or dot."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{backbone}-{kept}")


def _log_model(connection: Connection, record: SearchRecord, run_id: str, weights_sha256: str) -> str:
    """Log the network with its normalisation inside, and return the id of the logged model."""
    from odn.models.stored_networks import load_network

    name = logged_name(record.config.model.backbone, f"{record.config.unit}-{record.search.depth}") if record.search else "model"
    log = log_classifier(load_network(record.model), manifest=record.manifest)
    return logged(connection, log, run_id=run_id, name=name, weights_sha256=weights_sha256)
