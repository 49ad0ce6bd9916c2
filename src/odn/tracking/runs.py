"""Find or make the runs of a search: one parent, and a child for each depth."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from odn.config import Config
from odn.tracking.connection import Connection
from odn.tracking.identity import flat_params, search_id, search_name

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

PARAMS_A_CALL, METRICS_A_CALL = 100, 500  # MLflow's own limits are 100 and 1,000
SHOWN_AS = {"mlflow.source.name": "odn", "mlflow.source.type": "PROJECT"}


def search_run(connection: Connection, config: Config, data_sha256: Mapping[str, str]) -> "Run":
    """Return the parent run of a search: the first that has its tag, else a new one with the settings as params."""
    identity = search_id(config, data_sha256)
    found = _first(connection, f"tags.`odn.search` = '{identity}'")
    if found is None:
        tags = {**SHOWN_AS, **_user(), "odn.search": identity}
        found = connection.client.create_run(connection.experiment_id, run_name=search_name(config), tags=tags)
    missing = {name: value for name, value in flat_params(config).items() if name not in found.data.params}
    if missing:
        log_params(connection, found.info.run_id, missing)
    return found


def depth_run(connection: Connection, parent_id: str, *, depth: int) -> "Run | None":
    """Return the child run of a depth, if there is one."""
    return _first(connection, f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.`odn.depth` = '{depth}'")


def new_depth_run(connection: Connection, parent_id: str, *, depth: int) -> "Run":
    """Make the child run of a depth."""
    tags = {**SHOWN_AS, **_user(), "mlflow.parentRunId": parent_id, "odn.depth": str(depth)}
    run = connection.client.create_run(connection.experiment_id, run_name=f"depth-{depth}", tags=tags)
    log_params(connection, run.info.run_id, {"depth": str(depth)})
    return run


def model_run(connection: Connection, name: str, identity: Mapping[str, str]) -> "Run":
    """Return the run of a registered model's weights: the first that has the tags of `identity`, else a new one."""
    tags = {"odn.model": name, **identity}
    found = _first(connection, " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items()))
    if found is None:
        found = connection.client.create_run(connection.experiment_id, run_name=name, tags={**SHOWN_AS, **_user(), **tags})
    return found


def log_params(connection: Connection, run_id: str, params: Mapping[str, str]) -> None:
    """Log params, as many a call as MLflow takes."""
    from mlflow.entities import Param

    entities = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entities), PARAMS_A_CALL):
        connection.client.log_batch(run_id, params=entities[start : start + PARAMS_A_CALL])


def log_metrics(connection: Connection, run_id: str, metrics: "list[Metric]") -> None:
    """Log metrics, as many a call as MLflow takes."""
    for start in range(0, len(metrics), METRICS_A_CALL):
        connection.client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_CALL])


def set_tags(connection: Connection, run: "Run", tags: Mapping[str, str]) -> None:
    """Set the tags that the run does not have yet, or has otherwise."""
    from mlflow.entities import RunTag

    changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
    if changed:
        connection.client.log_batch(run.info.run_id, tags=changed)


def _first(connection: Connection, condition: str) -> "Run | None":
    runs = connection.client.search_runs([connection.experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _user() -> dict[str, str]:
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    return {"mlflow.user": user} if user else {}
