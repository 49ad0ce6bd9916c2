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
SAME = 10  # runs of equal tags that are looked at: two machines may make them at once
SHOWN_AS = {"mlflow.source.name": "odn", "mlflow.source.type": "PROJECT"}


def search_run(connection: Connection, config: Config, data_sha256: Mapping[str, str]) -> "Run":
    """Return the parent run of a search: the first that has its tag, else a new one with the settings as params."""
    found = _found_or_made(connection, {"odn.search": search_id(config, data_sha256)}, name=search_name(config))
    missing = {name: value for name, value in flat_params(config).items() if name not in found.data.params}
    if missing:
        log_params(connection, found.info.run_id, missing)
    return found


def depth_run(connection: Connection, parent_id: str, *, depth: int) -> "Run | None":
    """Return the child run of a depth, if there is one."""
    return _first(connection, _depth_tags(parent_id, depth))


def new_depth_run(connection: Connection, parent_id: str, *, depth: int, unit: str = "depth") -> "Run":
    """Make the child run of a depth, or rung, or return the one that another process made meanwhile."""
    run = _found_or_made(connection, _depth_tags(parent_id, depth), name=f"{unit}-{depth}")
    log_params(connection, run.info.run_id, {"depth": str(depth)})
    return run


def model_run(connection: Connection, name: str, identity: Mapping[str, str]) -> "Run":
    """Return the run of a registered model's weights: the first that has the tags of `identity`, else a new one."""
    return _found_or_made(connection, {"odn.model": name, **identity}, name=name)


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


def _found_or_made(connection: Connection, identity: Mapping[str, str], *, name: str) -> "Run":
    """Return the first run that has these tags, made where there is none; of two that are made at once, the later is deleted again."""
    found = _first(connection, identity)
    if found is not None:
        return found
    client = connection.client
    made = client.create_run(connection.experiment_id, run_name=name, tags={**SHOWN_AS, **_user(), **identity})
    first = _first(connection, identity) or made
    if first.info.run_id != made.info.run_id:
        client.delete_run(made.info.run_id)
    return first


def _first(connection: Connection, identity: Mapping[str, str]) -> "Run | None":
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    runs = connection.client.search_runs([connection.experiment_id], condition, max_results=SAME, order_by=["attributes.start_time ASC"])
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _depth_tags(parent_id: str, depth: int) -> dict[str, str]:
    return {"mlflow.parentRunId": parent_id, "odn.depth": str(depth)}


def _user() -> dict[str, str]:
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    return {"mlflow.user": user} if user else {}
