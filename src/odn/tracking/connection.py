"""Open a tracking store: the one door through which mlflow is imported."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.errors import TrackingError
from odn.tracking.place import QUIET, Place, why_unreachable, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


EXPERIMENT_TAGS = {  # the page opens with what is of use to training, and says what the experiment is
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Searches for the depth that a data set needs: a run a search, a child run a depth. Written by odn.",
}


class AwayError(TrackingError):
    """Report a store that cannot be reached or refuses: where, why without secrets, and the way out."""

    def __init__(
        self, place: Place, reason: object, *, again: str = "'dvc repro register' ('odn track --replay' for the runs alone)"
    ) -> None:
        self.reason = short(reason, place)
        super().__init__(
            f"MLflow at {place.shown} cannot be used ({self.reason}); nothing is lost: the record is in the stages' files. "
            f"Start the server or set MLFLOW_TRACKING_URI, then run {again}"
        )


@dataclass(frozen=True)
class Connection:
    """Hold an open store and the experiment that everything goes into."""

    client: "MlflowClient"
    experiment_id: str
    place: Place


def import_mlflow() -> Any:
    """Import mlflow with its telemetry, banners and progress bars switched off, unless the environment says otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow


def connect(place: Place) -> Connection:
    """Open the store, making a missing sqlite file and a missing experiment.

    Raises:
        AwayError: the store cannot be reached or refuses.
        TrackingError: the experiment is deleted.
    """
    unreachable = why_unreachable(place)
    if unreachable is not None:
        raise AwayError(place, unreachable)
    mlflow = import_mlflow()
    try:
        if place.sqlite_file is not None:
            create_schema(place.sqlite_file)
        client = mlflow.MlflowClient(tracking_uri=place.address)
        experiment = _experiment(client, place)
    except failures() as error:
        raise AwayError(place, error) from None
    if experiment.lifecycle_stage != "active":
        way_out = f"run 'mlflow experiments restore -x {experiment.experiment_id}', or choose another with MLFLOW_EXPERIMENT_NAME"
        raise TrackingError(f"the MLflow experiment {place.experiment} at {place.shown} is deleted; {way_out}")
    return Connection(client=client, experiment_id=experiment.experiment_id, place=place)


def _experiment(client: "MlflowClient", place: Place) -> "Experiment":
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(place.experiment)
    if found is not None:
        return found
    try:
        identity = client.create_experiment(place.experiment, artifact_location=place.artifact_location, tags=EXPERIMENT_TAGS)
        return client.get_experiment(identity)
    except MlflowException:
        found = client.get_experiment_by_name(place.experiment)  # another process was quicker
        if found is None:
            raise
        return found


def create_schema(path: Path) -> None:
    """Make a sqlite store at `path` unless there is one; whoever is killed meanwhile leaves none, not half of one."""
    if path.exists():
        return
    mlflow = import_mlflow()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{temporary.absolute()}").search_experiments(max_results=1)
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was quicker; its store is as good
    finally:
        temporary.unlink(missing_ok=True)


def failures() -> tuple[type[Exception], ...]:
    """List what a store that is away or refuses makes mlflow raise; for use in an `except` clause."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    kinds: list[type[Exception]] = [MlflowException, SQLAlchemyError, OSError]  # OSError: requests' own errors are among its children
    of_s3 = {"botocore.exceptions": ("BotoCoreError", "ClientError"), "boto3.exceptions": ("Boto3Error",)}
    for module, names in of_s3.items():
        if module in sys.modules:  # artifacts go to a bucket
            kinds += [getattr(sys.modules[module], name) for name in names]
    return tuple(kinds)


def short(reason: object, place: Place) -> str:
    """Return the first line of an error, without secrets, in at most 200 characters."""
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return without_secrets(lines[0], uri=place.uri)[:200]
