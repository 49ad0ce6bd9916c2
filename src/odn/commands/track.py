"""Put what there is of the search into MLflow: a search that runs, was killed, or ran while the server was away.

Reads: work/prepared/dataset.json, work/depths, work/checks, model, metrics, plots, report, export
Writes: nothing
Config: all
"""

from pathlib import Path

from odn.config import Config
from odn.searching.folder import SearchFolder
from odn.tracking.provenance import provenance
from odn.tracking.record import read_record
from odn.tracking.replay import Replayed, replay


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
    project: Path = Path(),
) -> Replayed:
    """Replay the record, as far as it goes; `project` is the folder of git and dvc.lock.

    Raises:
        MissingInputError: data is not prepared.
        TrackingError: MLflow cannot be reached or refuses; a later replay goes on from what is there.
    """
    places: dict[str, Path] = {"model": model, "metrics": metrics, "plots": plots, "report": report, "exported": exported}
    record = read_record(config, dataset=prepared / "dataset.json", search=search, **places)
    return replay(record, tags=provenance(project))
