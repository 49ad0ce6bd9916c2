"""Open a tracking store: the one door through which mlflow is imported."""

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.errors import TrackingError
from odn.sanitize import sanitized
from odn.tracking.place import KNOWN, QUIET, RETRIES, Place, longest_wait, why_unreachable
from odn.tracking.sqlite import LOCK_SECONDS, why_unusable
from odn.waiting import waiting

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


EXPERIMENT_TAGS = {  # the page opens with what is of use to training, and says what the experiment is
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Searches for the depth that a data set needs: a run a search, a child run a depth. Written by odn.",
}


DRIVERS = {  # module that sqlalchemy misses: the package that brings it
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
    "pymssql": "pymssql",
}
REFUSED = re.compile(r"\berror code 40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED")
NO_MLFLOW = re.compile(r"\berror code 404\b|not in a valid JSON|redirects|Failed to parse|no id$")
NO_ID = "the experiment that is answered has no id"
LONGEST_REASON = 320  # characters: mlflow's word on an old schema ends in what to do


class AwayError(TrackingError):
    """Report a store that cannot be reached or refuses: where, why without secrets, and the way out."""

    def __init__(
        self, place: Place, reason: object, *, again: str = "'dvc repro register' ('odn track --replay' for the runs alone)"
    ) -> None:
        self.reason = short(reason)
        super().__init__(
            f"MLflow at {place.shown} cannot be used ({self.reason}); nothing is lost: the record is in the stages' files. "
            f"{_way_out(place, self.reason)}, then run {again}"
        )


def _way_out(place: Place, reason: str) -> str:
    if KNOWN in reason or "name a file" in reason:
        return "Mend MLFLOW_TRACKING_URI"
    if place.sqlite_file is not None:
        return "Mend or move the file, or set MLFLOW_TRACKING_URI"
    if REFUSED.search(reason):
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if NO_MLFLOW.search(reason):
        return "What answers is not MLflow, or a page to sign in before it: mend MLFLOW_TRACKING_URI"
    return "Start the server or set MLFLOW_TRACKING_URI"


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


def connect(place: Place, *, tells: bool = True) -> Connection:
    """Open the store, making a missing sqlite file and a missing experiment; tell of a long wait unless `tells` is off.

    Raises:
        AwayError: the store cannot be reached or refuses.
        TrackingError: the experiment is deleted.
    """
    check(place, tells=tells)
    mlflow = import_mlflow()
    try:
        with answering(place, tells=tells):
            client = mlflow.MlflowClient(tracking_uri=place.address)
            experiment = _experiment(client, place)
    except failures() as error:
        raise AwayError(place, error) from None
    if not experiment.experiment_id:
        raise AwayError(place, NO_ID)
    if experiment.lifecycle_stage != "active":
        way_out = f"run 'mlflow experiments restore -x {experiment.experiment_id}', or choose another with MLFLOW_EXPERIMENT_NAME"
        raise TrackingError(f"the MLflow experiment {place.experiment} at {place.shown} is deleted; {way_out}")
    return Connection(client=client, experiment_id=experiment.experiment_id, place=place)


def answering(place: Place, *, tells: bool = True) -> contextlib.AbstractContextManager[None]:
    """Tell of a long wait for a server while the block lasts, and when it is given up."""
    if place.sqlite_file is not None or not tells:
        return contextlib.nullcontext()
    times = f", {RETRIES + 1} times" if place.is_server else ""
    return waiting(f"MLflow at {place.shown}", limit=f"a request is given up after {longest_wait():g} s without an answer{times}")


def check(place: Place, *, tells: bool = True) -> None:
    """Say at once what is wrong with a store, where mlflow would try again and again in silence; make a missing sqlite file.

    Raises:
        AwayError: the store cannot be reached or used.
    """
    with answering(place, tells=tells):
        reason = why_unreachable(place)
    if reason is None and place.sqlite_file is not None:
        given_up = f"a lock of another process is given up after {LOCK_SECONDS:g} s"
        with waiting(f"MLflow at {place.shown}", limit=given_up) if tells else contextlib.nullcontext():
            reason = why_unusable(place.sqlite_file)
    if reason is not None:
        raise AwayError(place, reason)
    try:
        if place.sqlite_file is not None:
            create_schema(place.sqlite_file)
        elif not place.is_server and "databricks" not in place.uri.split(":")[0]:
            _open_database(place)
    except ModuleNotFoundError as error:
        package = DRIVERS.get(str(error.name), str(error.name))
        raise AwayError(place, f"its driver is not installed: run pip install '{package}' beside odn") from None
    except failures() as error:
        raise AwayError(place, error) from None


def _open_database(place: Place) -> None:
    """Connect once to a database that is no file."""
    import_mlflow()
    import sqlalchemy

    engine = sqlalchemy.create_engine(place.address)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch()  # where no file can be made it is known now; mlflow would try for minutes
    try:
        mlflow = import_mlflow()
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{temporary.absolute()}").search_experiments(max_results=1)
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was quicker; its store is as good
    finally:
        temporary.unlink(missing_ok=True)


def failures() -> tuple[type[Exception], ...]:
    """List what a store that is away or refuses makes mlflow raise; for use in an `except` clause."""
    from alembic.util.exc import CommandError
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # CommandError: tables of another version of mlflow. ParseError: JSON that is not MLflow's. OSError: the parent of requests' errors.
    kinds: list[type[Exception]] = [MlflowException, SQLAlchemyError, CommandError, ParseError, OSError]
    of_s3 = {"botocore.exceptions": ("BotoCoreError", "ClientError"), "boto3.exceptions": ("Boto3Error",)}
    for module, names in of_s3.items():
        if module in sys.modules:  # artifacts go to a bucket
            kinds += [getattr(sys.modules[module], name) for name in names]
    return tuple(kinds)


def short(reason: object) -> str:
    """Return the first line of an error, without secrets, not too long."""
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return sanitized(lines[0])[:LONGEST_REASON]
