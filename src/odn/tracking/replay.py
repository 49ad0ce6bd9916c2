"""Draw a search into MLflow from its record. Doing it again changes nothing; doing it later mends what is missing."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from odn.sanitize import redacted
from odn.tracking.alive import close_dead, is_attended
from odn.tracking.alone import written
from odn.tracking.connection import AwayError, Connection, connect, failures
from odn.tracking.place import Place, tracking_place
from odn.tracking.record import BY_DEPTH, BY_EPOCH, CURVES, DepthRecord, SearchRecord
from odn.tracking.runs import depth_run, log_metrics, new_depth_run, search_run, set_tags
from odn.tracking.words import depth_note, search_note

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

ROUNDING = 1e-6  # history.csv holds six decimals; the live curve holds them all


@dataclass(frozen=True)
class Replayed:
    """Say where a search now is in MLflow."""

    place: Place
    experiment_id: str
    run_id: str
    depths: dict[int, str]  # depth → run
    new: tuple[int, ...]  # the depths that were not, or not wholly, there before
    closed: int = 0  # runs of the experiment that were RUNNING, and whose process is gone

    @property
    def url(self) -> str | None:
        """Return the page of the parent run, where the store is a server."""
        page = f"{self.place.shown.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return page if self.place.is_server else None

    def describe(self) -> str:
        """Say in a line where the search is, and what was added."""
        added = f"added depth {', '.join(str(depth) for depth in self.new)}" if self.new else "every depth was there already"
        closed = f"; closed {self.closed} runs whose process is gone" if self.closed else ""
        return f"run {self.run_id} with {len(self.depths)} depths at {self.url or self.place.shown}: {added}{closed}"


def replay(record: SearchRecord, *, tags: Mapping[str, str], place: Place | None = None) -> Replayed:
    """Put all that the record holds into the parent run and a child run for each depth.

    `tags` says where the search comes from (see `provenance`); a record that was there already keeps what was said of it first.

    Raises:
        TrackingError: the store cannot be reached or refuses; a later replay goes on from what is there.
    """
    place = place or tracking_place()
    connection = connect(place)
    try:
        return written(place, lambda: _replay(connection, record, tags))
    except failures() as error:
        raise AwayError(place, error) from None


def _replay(connection: Connection, record: SearchRecord, tags: Mapping[str, str]) -> Replayed:
    closed = len(close_dead(connection))
    parent = search_run(connection, record.config, record.manifest.sha256)
    run_id = parent.info.run_id
    depths, new = {}, []
    for depth in record.depths:
        depths[depth.depth], changed = _replay_depth(connection, run_id, depth, unit=record.config.unit, done=record.search is not None)
        new += [depth.depth] if changed else []
    data = {f"odn.data_sha256.{split}": digest for split, digest in record.manifest.sha256.items()}
    ending = _ending(record)
    origin = tags if new else {name: value for name, value in tags.items() if name not in parent.data.tags}  # the same record keeps its own
    set_tags(connection, parent, {**origin, **data, **ending, "mlflow.note.content": search_note(record)})
    log_changed(connection, parent, record.metrics)
    _log_by_depth(connection, run_id, record.depths)
    if not parent.inputs or not parent.inputs.dataset_inputs:
        connection.client.log_inputs(run_id, datasets=_datasets(record))
    log_folders(connection, parent, record.folders)
    if record.search is not None:
        _set_status(connection, parent, "FINISHED")
    elif not is_attended(parent) and parent.info.status == "RUNNING":  # it was made here, and no process works on it
        _set_status(connection, parent, "SCHEDULED")
    return Replayed(connection.place, connection.experiment_id, run_id, depths, tuple(new), closed)


def _ending(record: SearchRecord) -> dict[str, str]:
    if record.search is None:
        return {}
    ending = {
        "odn.verdict": record.search.verdict,
        "odn.depth.accepted": record.search.depth,
        "odn.reason": record.card.reason if record.card is not None else "",
    }
    return {name: str(value) for name, value in ending.items()}


def _replay_depth(connection: Connection, parent_id: str, record: DepthRecord, *, unit: str, done: bool) -> tuple[str, bool]:
    """Bring one child run up to the record; return it, and whether there was anything to do."""
    run = depth_run(connection, parent_id, depth=record.depth)
    digest = record.sha256[:16]
    if run is not None and run.data.tags.get("odn.complete") == digest:
        return run.info.run_id, False
    there = _curve(connection, run.info.run_id) if run is not None else {}
    wanted = {(name, point.step): value for point in record.points for name, value in point.values.items()}
    if run is not None and _contradicts(there, wanted, last=record.points[-1].step if record.points else 0, done=done):
        connection.client.delete_run(run.info.run_id)
        run, there = None, {}
    if run is None:
        run = new_depth_run(connection, parent_id, depth=record.depth, unit=unit)
    run_id = run.info.run_id
    log_metrics(
        connection, run_id, [_metric(BY_EPOCH + name, value, step) for (name, step), value in wanted.items() if (name, step) not in there]
    )
    log_changed(connection, run, _scalars(record))
    for file in record.files:
        made_for_one_depth = file.parent.name == str(record.depth)
        connection.client.log_artifact(run_id, str(file), artifact_path=file.parent.parent.name if made_for_one_depth else None)
    if record.verdict is None:
        set_tags(connection, run, {"mlflow.note.content": depth_note(record, unit=unit)})
        if not is_attended(run) and run.info.status == "RUNNING":
            _set_status(connection, run, "FINISHED")
        return run_id, True
    verdict = {"odn.verdict": record.verdict.verdict, "odn.reason": record.verdict.reason}
    set_tags(connection, run, {**verdict, "mlflow.note.content": depth_note(record, unit=unit)})
    if done or not is_attended(run):  # its finish may be at work
        _set_status(connection, run, "FINISHED")
    set_tags(connection, run, {"odn.complete": digest})  # last: a replay that breaks off before is done again
    return run_id, True


def _curve(connection: Connection, run_id: str) -> dict[tuple[str, int], float]:
    return {
        (name, metric.step): metric.value for name in CURVES for metric in connection.client.get_metric_history(run_id, BY_EPOCH + name)
    }


def _contradicts(there: dict[tuple[str, int], float], wanted: dict[tuple[str, int], float], *, last: int, done: bool) -> bool:
    """Tell whether a live curve is not the one of the record; epochs beyond the record are fine while the search goes on."""
    inside = {key: value for key, value in there.items() if done or key[1] <= last}
    return any(key not in wanted or abs(wanted[key] - value) > ROUNDING for key, value in inside.items())


def _scalars(record: DepthRecord) -> dict[str, float]:
    """Return what is known of a depth as single numbers, named apart from the curves."""
    step, verdict = record.step, record.verdict
    scalars = {"n_params": float(step.n_params), "size_bytes": float(step.size_bytes), "macs": float(step.macs)}
    scalars |= {"ema_accuracy": step.val_accuracy, "full_network_epochs": step.cost + (verdict.cost if verdict is not None else 0)}
    if verdict is not None:
        low, high = verdict.val_interval
        scalars |= {"judged_accuracy": verdict.val_accuracy, "judged_accuracy_low": low, "judged_accuracy_high": high}
    return scalars


def _log_by_depth(connection: Connection, run_id: str, depths: tuple[DepthRecord, ...]) -> None:
    """Draw accuracy against depth in the parent run, with the depth as the step."""
    name = f"{BY_DEPTH}val_accuracy"
    there = {metric.step: metric.value for metric in connection.client.get_metric_history(run_id, name)}
    wanted = {one.kept: one.verdict.val_accuracy for one in depths if one.verdict is not None}
    metrics = [_metric(name, value, depth) for depth, value in wanted.items() if there.get(depth) != value]
    log_metrics(connection, run_id, metrics)


def log_changed(connection: Connection, run: "Run", scalars: Mapping[str, float]) -> None:
    """Log the numbers that the run does not have yet, or has otherwise."""
    changed = [_metric(name, value, 0) for name, value in scalars.items() if run.data.metrics.get(name) != value]
    log_metrics(connection, run.info.run_id, changed)


def _metric(name: str, value: float, step: int) -> "Metric":
    from mlflow.entities import Metric

    return Metric(name, value, int(time.time() * 1000), step)


def log_folders(connection: Connection, parent: "Run", folders: Mapping[str, Path]) -> None:
    """Log folders of artifacts, unless the same files are there already."""
    digest = hashlib.sha256()
    for name, folder in sorted(folders.items()):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{name}/{file.relative_to(folder)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    shown = digest.hexdigest()[:16]
    if not folders or parent.data.tags.get("odn.artifacts") == shown:
        return
    for name, folder in folders.items():
        connection.client.log_artifacts(parent.info.run_id, str(folder), artifact_path=name)
    set_tags(connection, parent, {"odn.artifacts": shown})


def _datasets(record: SearchRecord) -> "list[DatasetInput]":
    """Describe the three splits as inputs, without reading an image."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest, root = record.manifest, redacted(record.config.data.root or "data")
    source_type = "s3" if root.startswith("s3://") else "local"
    inputs = []
    for split, digest in manifest.sha256.items():
        shape = [manifest.counts[split]["total"], manifest.channels, manifest.height, manifest.width]
        tensor = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *shape[1:]]}}
        dataset = Dataset(
            name=record.config.data.name,
            digest=digest[:16],
            source_type=source_type,
            source=json.dumps({"uri": root}),
            schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps([tensor]), "targets": None}}),
            profile=json.dumps({"features_shape": shape, "classes": len(manifest.classes)}),
        )
        inputs.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", split)]))
    return inputs


def _set_status(connection: Connection, run: "Run", status: str) -> None:
    if run.info.status == status:
        return
    if status == "SCHEDULED":
        connection.client.update_run(run.info.run_id, status=status)
    else:
        connection.client.set_terminated(run.info.run_id, status=status)
