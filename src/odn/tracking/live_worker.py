"""Log what a LiveRun sends, row by row, until it ends or the store fails: `python -m odn.tracking.live_worker`.

Reads JSON lines: a header, then {"row", "time_ms"} for each epoch, then {"end": status}; the input ends without it when the
training was killed. Says "ready" once connected. A store that fails is worth one line of warning and nothing more.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from odn.config import make_config
from odn.errors import TrackingError
from odn.sanitize import sanitized
from odn.tracking.alone import alone
from odn.tracking.connection import AwayError, Connection, connect, failures, short
from odn.tracking.live import READY
from odn.tracking.place import Place, tracking_place, why_unreachable
from odn.tracking.record import BY_EPOCH, CURVES
from odn.tracking.runs import depth_run, log_metrics, new_depth_run, search_run, set_tags

if TYPE_CHECKING:
    from mlflow.entities import Run


def main() -> None:
    """Serve one LiveRun."""
    os.nice(10)
    place = tracking_place()
    messages = (json.loads(line) for line in sys.stdin)
    header = next(messages)
    unreachable = why_unreachable(place)
    if unreachable is not None:
        warn(place, unreachable)
        return
    try:
        connection = connect(place, tells=False)
        logging.disable(logging.CRITICAL)  # one line of warning is enough
        with alone(place, tells=False):
            run = _run(connection, header)
        if run is None:
            return
        os.write(sys.stdout.fileno(), READY)
        _serve(connection, run, header, messages)
    except AwayError as error:
        warn(place, error.reason)
    except TrackingError as error:
        warn(place, error)
    except failures() as error:
        warn(place, error)


def warn(place: Place, reason: object) -> None:
    """Say once that tracking stops, and what to do about it later."""
    said = (
        f"tracking at {place.shown} failed ({short(reason)}); training goes on, the record is in the stage's files; "
        "'odn track --replay' puts it there later"
    )
    sys.stderr.write(f"odn: {sanitized(said)}\n")


def _run(connection: Connection, header: dict[str, Any]) -> "Run | None":
    """Return the child run of the depth; None if it is complete already: a stage that is forced to run again shows nothing new."""
    config = make_config(header["config"])
    parent_id = search_run(connection, config, header["data_sha256"]).info.run_id
    run = depth_run(connection, parent_id, depth=header["depth"])
    if run is None:
        return new_depth_run(connection, parent_id, depth=header["depth"], unit=config.unit)
    if "odn.complete" in run.data.tags and header["phase"] not in {"finish", "reduce"}:
        return None
    connection.client.update_run(run.info.run_id, status="RUNNING")
    return run


def _serve(connection: Connection, run: "Run", header: dict[str, Any], messages: Iterator[dict[str, Any]]) -> None:
    from mlflow.entities import Metric

    run_id, name = run.info.run_id, f"odn.steps_before.{header['phase']}"
    there = {metric.step for metric in connection.client.get_metric_history(run_id, f"{BY_EPOCH}val_accuracy")}
    before = header["steps_before"]
    if before is None:
        before = 0 if header["phase"] in ("stable", "anneal") else int(run.data.tags.get(name, max(there, default=0)))
    set_tags(connection, run, {name: str(before)})
    status = "KILLED"
    for message in messages:
        if "end" in message:
            status = message["end"]
            break
        row, step = message["row"], before + message["row"]["epoch"]
        if step not in there:  # a resumed training shows its epochs again
            metrics = [Metric(BY_EPOCH + key, float(row[key]), message["time_ms"], step) for key in CURVES if key in row]
            log_metrics(connection, run_id, metrics)
            there.add(step)
    if status != "RUNNING":
        connection.client.set_terminated(run_id, status=status)


if __name__ == "__main__":
    main()
