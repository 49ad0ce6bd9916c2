"""Register a model that is not the outcome of a search: a run of its own, a version, the alias `candidate`.

Doing it again changes nothing; doing it later mends what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.config import Config
from odn.files import sha256_of
from odn.tracking.alone import written
from odn.tracking.connection import AwayError, Connection, connect, failures
from odn.tracking.identity import flat_params
from odn.tracking.place import tracking_place
from odn.tracking.registry import Registration
from odn.tracking.replay import log_changed, log_folders
from odn.tracking.runs import log_params, model_run, set_tags
from odn.tracking.versions import Log, find_version, logged, new_version, registered_model, tag_version

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class Model:
    """Hold what is registered, and all that is told of it."""

    name: str  # in the registry
    folder: Path  # its files become artifacts of the run, below `model`
    weights: tuple[str, ...] = ("weights.safetensors",)  # files of the folder whose digest tells versions apart
    log: Log  # how the model is logged: see `versions.log_classifier`
    about: str  # of the registered model, over all its versions
    description: str  # of this version
    metrics: Mapping[str, float]
    tags: Mapping[str, str]  # of the run and of the version


def publish_model(model: Model, *, config: Config, again: str) -> Registration:
    """Put a model into MLflow and its registry; the same weights under the same name keep the version that they have.

    `again` is the command that a person runs when MLflow was away.

    Raises:
        TrackingError: the store cannot be reached or refuses; doing it again mends what is missing.
    """
    place = tracking_place()
    try:
        connection = connect(place)
        return written(place, lambda: _publish(connection, model, config))
    except AwayError as error:
        raise AwayError(place, error.reason, again=again) from None
    except failures() as error:
        raise AwayError(place, error, again=again) from None


def _publish(connection: Connection, model: Model, config: Config) -> Registration:
    client, weights = connection.client, sha256_of(*(model.folder / name for name in model.weights))
    described = registered_model(connection, model.name, description=model.about)
    identity = {"odn.weights_sha256": weights}
    run = _run(connection, model, config, identity)
    found = find_version(connection, model.name, identity)
    is_new = found is None
    if found is None:
        name = model.name.replace(".", "-")  # a logged model's name holds no point; a registered one's may
        model_id = logged(connection, model.log, run_id=run.info.run_id, name=name, weights_sha256=weights)
        made: dict[str, Any] = {"model_id": model_id, "run_id": run.info.run_id, "description": model.description}
        found = new_version(connection, model.name, **made, tags=model.tags, identity=identity)
    tag_version(connection, found, model.tags)
    version = str(found.version)
    if str(described.aliases.get("candidate")) != version:
        client.set_registered_model_alias(model.name, "candidate", version)
    return Registration(
        name=model.name,
        version=version,
        run_id=run.info.run_id,
        tracking_uri=connection.place.shown,
        aliases=("candidate",),
        champion=False,
        reason="new weights" if is_new else f"these weights are version {version} already",
        previous_champion=None,
    )


def _run(connection: Connection, model: Model, config: Config, identity: Mapping[str, str]) -> "Run":
    """Find or make the model's run, and bring it up to what is told of the model."""
    run = model_run(connection, model.name, identity)
    missing = {name: value for name, value in flat_params(config).items() if name not in run.data.params}
    log_params(connection, run.info.run_id, missing)
    set_tags(connection, run, {**model.tags, "mlflow.note.content": model.description})
    log_changed(connection, run, model.metrics)
    log_folders(connection, run, {"model": model.folder})
    if run.info.status != "FINISHED":
        connection.client.set_terminated(run.info.run_id)
    return run
