"""Run a whole search in a folder of its own, stage by stage as DVC would, and read off what it found and cost."""

import csv
import hashlib
import json
import time
from pathlib import Path

from benchmarks.results import Result
from odn.config import Config
from odn.data.dataset import read_manifest
from odn.searching.data import backbone_of, costs_at
from odn.searching.folder import SearchFolder
from odn.stages import check, evaluate, fetch, prepare, train, truncate
from odn.stages import open as opening


def place_of(config: Config, *, work: Path) -> Path:
    """Return where a config works below `work`: no two share data, or what an interrupted run left."""
    return work / f"seed-{config.seed}-{hashlib.sha256(config.to_json().encode()).hexdigest()[:12]}"


def prepare_data(config: Config, *, folder: Path) -> Path:
    """Fetch and prepare the data of a config; return the folder of the splits."""
    prepared = folder / "prepared"
    if not (prepared / "dataset.json").exists():
        fetch.run(config, downloads=folder / "data")
        splits = {name: prepared / name for name in ("train", "val", "test")}
        prepare.run(config, data=folder / "data", manifest=prepared / "dataset.json", progress=folder / "progress", **splits)
    return prepared


def run_search(config: Config, *, arm: str, prepared: Path, folder: Path) -> Result:
    """Search as `config` says, certify the model on test, and return what came of it; an interrupted run goes on."""
    begin = time.monotonic()
    search, progress = SearchFolder(folder), folder / "progress"
    opening.run(config, search=search)
    for depth in config.search.schedule:
        after = config.depth_before(depth)
        train.run(config, depth=depth, after=after, prepared=prepared, search=search, progress=progress)
        check.run(config, depth=depth, after=after, prepared=prepared, search=search, progress=progress)
    model = folder / "model"
    found = truncate.run(
        config, prepared=prepared, search=search, model=model, metrics=folder / "search.json", plots=folder / "plots", progress=progress
    )
    seconds = time.monotonic() - begin
    certified = evaluate.run(
        config,
        prepared=prepared,
        search=search,
        model=model,
        evaluation=folder / "evaluation",
        metrics=folder / "evaluation.json",
        latency=folder / "latency.json",
    )
    return Result(
        arm=arm,
        seed=config.seed,
        seconds=seconds,
        by_depth=accuracies(search.supernet(config.search.schedule[0]), checks=folder / "checks"),
        latency_ms=json.loads((folder / "latency.json").read_text())["latency_ms"],
        n_val=read_manifest(prepared / "dataset.json").counts["val"]["total"],
        **{name: found[name] for name in ("depth", "verdict", "val_accuracy", "full_network_epochs")},
        **{name: certified[name] for name in ("test_accuracy", "n_test", "n_params", "size_bytes", "macs")},
    )


def epoch_cost(config: Config, *, prepared: Path, depth: int) -> float:
    """Return what an epoch at a depth costs, in full-network epochs."""
    manifest = read_manifest(prepared / "dataset.json")
    backbone = backbone_of(config, manifest)
    return costs_at(backbone.at(depth), manifest).macs / costs_at(backbone, manifest).macs


def accuracies(supernet: Path, *, checks: Path) -> dict[str, float]:
    """Return the accuracy on val by depth: of every exit where a supernet was trained, else of the depths that were judged."""
    if supernet.exists():
        rows = list(csv.DictReader((supernet / "exits.csv").read_text().splitlines()))
        return {row["depth"]: float(row["val_accuracy"]) for row in rows if row["epoch"] == rows[-1]["epoch"]}
    verdicts = [json.loads(path.read_text()) for path in checks.glob("*/verdict.json")]
    known = {one["depth"]: one["val_accuracy"] for one in verdicts if not one.get("skipped")}
    return {str(depth): known[depth] for depth in sorted(known)}
