"""Put the search into MLflow and its model into the registry.

Reads: work/prepared/dataset.json, work/depths, work/checks, model, metrics/search.json, metrics/evaluation.json, metrics/latency.json,
  export, metrics/export.json, metrics/export_latency.json, plots/depths.csv, plots/history.csv, report
Writes: work/registered.json
Config: all

Beside the pipeline it writes .odn/registration.json: the run and the version, which differ from run to run.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.errors import MissingInputError
from odn.files import sha256_of, write_json
from odn.searching.folder import SearchFolder
from odn.tracking.provenance import provenance
from odn.tracking.record import read_record
from odn.tracking.registry import Registration, publish


def run(
    config: Config,
    *,
    prepared: Path,
    search: SearchFolder,
    model: Path,
    metrics: Path,
    plots: Path,
    report: Path,
    exported: Path,
    registered_weights: Path,
    registration: Path,
    project: Path = Path(),
    tags: Mapping[str, str] | None = None,
) -> Registration:
    """Replay the record, register the model and write what came of it.

    `project` is the folder of git and dvc.lock; `tags` says more of where the search comes from.

    The record says which weights are registered under which name, and repeats to the byte. Run ids and versions do not: they
    are this store's, and stand in `registration`, which DVC does not track.

    Raises:
        MissingInputError: the search has not ended, or its model is not evaluated.
        TrackingError: MLflow cannot be reached or refuses; running the stage again mends what is missing.
    """
    places: dict[str, Path] = {"model": model, "metrics": metrics, "plots": plots, "report": report, "exported": exported}
    record = read_record(config, dataset=prepared / "dataset.json", search=search, **places)
    if "test_accuracy" not in record.metrics:
        raise MissingInputError(f"{metrics} does not hold the results of this search; run 'dvc repro evaluate' first")
    done = publish(record, tags={**provenance(project), **(tags or {})})
    write_json(registration, asdict(done))
    write_json(registered_weights, {"name": done.name, "weights_sha256": sha256_of(model / "weights.safetensors")})
    return done
