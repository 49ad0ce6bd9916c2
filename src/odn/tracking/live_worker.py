"""Log what a LiveRun sends, row by row, until it ends or the store fails: `python -m odn.tracking.live_worker`.

Reads JSON lines: a header, then {"row", "time_ms"} for each epoch, then {"end": status}; the input ends without it when the
training was killed. Says "ready" once connected. A store that fails is worth one line of warning and nothing more.

A run is RUNNING while it is trained, and no longer: a child of which a phase is done is FINISHED, its parent SCHEDULED until the next.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from odn.config import make_config
from odn.errors import TrackingError
from odn.sanitize import sanitized
from odn.tracking.alive import attended, close_dead
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
            close_dead(connection)
            runs = _runs(connection, header)
        if runs is not None:
            os.write(sys.stdout.fileno(), READY)
            _serve(connection, *runs, header, messages)
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


def _runs(connection: Connection, header: dict[str, Any]) -> "tuple[Run, Run] | None":
    """Return the runs of search and depth; None if the depth is complete already: a stage that is forced to run again shows nothing new."""
    config = make_config(header["config"])
    parent = search_run(connection, config, header["data_sha256"])
    run = depth_run(connection, parent.info.run_id, depth=header["depth"])
    if run is None:
        return parent, new_depth_run(connection, parent.info.run_id, depth=header["depth"], unit=config.unit)
    if "odn.complete" in run.data.tags and header["phase"] not in {"finish", "reduce"}:
        return None
    return parent, run


def _serve(connection: Connection, parent: "Run", run: "Run", header: dict[str, Any], messages: Iterator[dict[str, Any]]) -> None:
    """Log what comes until it ends, and close the runs as it has ended; a store that fails in between does not make them look dead."""
    told: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    with attended(connection, run.info.run_id, parent.info.run_id):
        try:
            end = _log(connection, run, header, messages)
        except failures() as error:
            warn(connection.place, error)
            end = next((message["end"] for message in messages if "end" in message), "KILLED")
            told = contextlib.suppress(*failures())
    with told:  # once is enough
        _close(connection, parent, run, end)


def _log(connection: Connection, run: "Run", header: dict[str, Any], messages: Iterator[dict[str, Any]]) -> str:
    """Log the rows, and return how the training ended."""
    from mlflow.entities import Metric

    run_id, name = run.info.run_id, f"odn.steps_before.{header['phase']}"
    there = {metric.step for metric in connection.client.get_metric_history(run_id, f"{BY_EPOCH}val_accuracy")}
    before = header["steps_before"]
    if before is None:
        before = 0 if header["phase"] in ("stable", "anneal") else int(run.data.tags.get(name, max(there, default=0)))
    set_tags(connection, run, {name: str(before)})
    for message in messages:
        if "end" in message:
            return str(message["end"])
        row, step = message["row"], before + message["row"]["epoch"]
        if step not in there:  # a resumed training shows its epochs again
            metrics = [Metric(BY_EPOCH + key, float(row[key]), message["time_ms"], step) for key in CURVES if key in row]
            log_metrics(connection, run_id, metrics)
            there.add(step)
    return "KILLED"


def _close(connection: Connection, parent: "Run", run: "Run", end: str) -> None:
    """Close both runs: as they failed, or else the parent as one whose next step is due."""
    child, search = ("FINISHED", "SCHEDULED") if end == "RUNNING" else (end, end)
    connection.client.set_terminated(run.info.run_id, status=child)
    if search == "SCHEDULED":
        connection.client.update_run(parent.info.run_id, status=search)
    else:
        connection.client.set_terminated(parent.info.run_id, status=search)


if __name__ == "__main__":
    main()
