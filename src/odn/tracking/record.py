"""Read what the stages of one search wrote, finished or not, as far as it belongs together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odn.config import Config
from odn.data.dataset import Manifest, read_manifest
from odn.export.artifacts import Exported, ExportLatency, read_exported
from odn.export.names import RECORD
from odn.files import sha256_of
from odn.records import read_if_there, read_table
from odn.searching.certified import Evaluation, LatencyRecord
from odn.searching.convergence import DepthStep, Verdict
from odn.searching.folder import SearchFolder
from odn.searching.results import Card, HistoryRow, SearchNumbers, read_depth_step, read_verdict
from odn.tracking.identity import search_id

CURVES = ("lr", "train_loss", "train_accuracy", "val_accuracy", "val_loss")  # columns of history.csv that are drawn by epoch
EXPORT = "export"  # folder of artifacts, and before the names of numbers
BY_EPOCH, BY_DEPTH = "epoch/", "depth/"  # before the names of curves: what their steps count; pages show such sections first


@dataclass(frozen=True)
class Point:
    """Hold one epoch of a depth's curve; steps run on from the stable phase into the trial anneal and the finish."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class DepthRecord:
    """Hold what one depth left."""

    depth: int
    step: DepthStep  # metrics.json of the training
    verdict: Verdict | None  # verdict.json of the check; None while it is not judged
    points: tuple[Point, ...]
    files: tuple[Path, ...]

    @property
    def kept(self) -> int:
        """Count the blocks of the network that training left: the depth, but for what was cut."""
        return self.step.kept

    @property
    def sha256(self) -> str:
        """Return the digest of everything that is shown of this depth."""
        return sha256_of(*self.files)


@dataclass(frozen=True)
class SearchRecord:
    """Hold what a search left so far."""

    config: Config
    manifest: Manifest
    depths: tuple[DepthRecord, ...]
    search: SearchNumbers | None  # metrics/search.json; None while no depth is accepted
    metrics: dict[str, float]  # every number in metrics/*.json that belongs to this search
    card: Card | None  # model/card.json; None while there is no model
    model: Path
    folders: dict[str, Path]  # name in MLflow → folder of artifacts that are there

    @property
    def search_id(self) -> str:
        """Return the name of the search."""
        return search_id(self.config, self.manifest.sha256)

    @property
    def verdict(self) -> str | None:
        """Return how the search ended; None while it runs."""
        return None if self.search is None else self.search.verdict


def read_record(
    config: Config, *, dataset: Path, search: SearchFolder, model: Path, metrics: Path, plots: Path, report: Path, exported: Path
) -> SearchRecord:
    """Read the record of the search that `config` describes.

    Depths are read in the order of the schedule up to the first that is not trained or not judged: what lies behind it is
    left from an earlier search. For the same reason the results are read only if they agree with the depths.

    Raises:
        MissingInputError: data is not prepared.
        DataError: a record is damaged.
    """
    manifest = read_manifest(dataset)
    chain: list[DepthRecord] = []
    for depth in config.search.schedule:
        found = _depth_record(depth, folder=search.trained(depth), check=search.judged(depth))
        if found is None:
            break
        chain.append(found)
        if found.verdict is None or found.verdict.verdict != "expand":
            break
    kept = read_if_there(SearchNumbers, metrics / "search.json", made_by="truncate")
    if kept is None or not chain or not _agrees(kept, chain, config):
        return SearchRecord(config, manifest, tuple(chain), None, {}, None, model, {})
    chain = [_finished(one, plots / "history.csv") for one in chain]
    evaluation = read_if_there(Evaluation, metrics / "evaluation.json", made_by="evaluate")
    latency = read_if_there(LatencyRecord, metrics / "latency.json", made_by="evaluate")
    numbers: dict[str, float] = {}
    for one in (kept, evaluation, latency):
        numbers |= {name: float(value) for name, value in (vars(one) if one else {}).items() if type(value) in {int, float}}
    folders = {"report": report, "plots": plots, "metrics": metrics, "model": model}
    exports = _exported(exported, model=model)
    if exports is not None:
        folders[EXPORT] = exported
        numbers |= _export_numbers(exports, metrics / "export_latency.json")
    there = {name: path for name, path in folders.items() if path.is_dir()}
    card = read_if_there(Card, model / "card.json", made_by="truncate")
    return SearchRecord(config, manifest, tuple(chain), kept, numbers, card, model, there)


def _exported(folder: Path, *, model: Path) -> Exported | None:
    """Read what the model was exported as; None where it was not yet, or where the files are left from another model."""
    if not (folder / RECORD).exists():
        return None
    found = read_exported(folder)
    return found if found.model_sha256 == sha256_of(model / "weights.safetensors") else None


def _export_numbers(exports: Exported, latency: Path) -> dict[str, float]:
    """Return the numbers of each file by format and name, with what was measured of these files."""
    rows = {name: dict(row) for name, row in exports.numbers().items()}
    measured = read_if_there(ExportLatency, latency, made_by="export")
    for name, speed in measured.speeds.items() if measured is not None else ():
        if name in rows:
            rows[name] |= vars(speed)
    return {f"{EXPORT}/{name}/{key}": float(value) for name, row in rows.items() for key, value in row.items()}


def _agrees(search: SearchNumbers, chain: Sequence[DepthRecord], config: Config) -> bool:
    """Tell whether metrics/search.json was made from these depths."""
    verdicts = [one.verdict for one in chain if one.verdict is not None]
    enough = [one.kept for one in chain if one.verdict is not None and one.verdict.reached]
    if len(verdicts) < len(chain) or verdicts[-1].verdict == "expand" or search.target != config.search.target:
        return False
    return (search.verdict, search.depth) == ("target_reached", enough[0]) if enough else search.verdict == "exhausted"


def _depth_record(depth: int, *, folder: Path, check: Path) -> DepthRecord | None:
    step = read_depth_step(folder) if (folder / "metrics.json").exists() else None
    if step is None:
        return None
    verdict = read_verdict(check) if (check / "verdict.json").exists() else None
    files = [folder / "metrics.json", folder / "history.csv"]
    points = _points(folder / "history.csv", after=0, made_by=f"train@{depth}")
    if verdict is not None:
        files.append(check / "verdict.json")
        if verdict.annealed:
            files.append(check / "history.csv")
            points += _points(check / "history.csv", after=_last(points), made_by=f"check@{depth}")
    return DepthRecord(depth, step, verdict, points, tuple(files))


def _finished(record: DepthRecord, history: Path) -> DepthRecord:
    """Let the curve of a depth run on into the epochs that finished it."""
    points = _points(history, after=_last(record.points), made_by="truncate", depth=record.depth, phase="finish")
    return replace(record, points=record.points + points, files=(*record.files, history)) if points else record


def _last(points: Sequence[Point]) -> int:
    return points[-1].step if points else 0


def _points(path: Path, *, after: int, made_by: str, depth: int | None = None, phase: str = "") -> tuple[Point, ...]:
    """Read the curve in a history.csv; where a depth is named, only its epochs of this phase."""
    rows = read_table(HistoryRow, path, made_by=made_by) if path.exists() else []
    wanted = [row for row in rows if depth is None or (row.depth == depth and row.phase == phase)]
    return tuple(Point(after + row.epoch, {name: getattr(row, name) for name in CURVES}) for row in wanted)
