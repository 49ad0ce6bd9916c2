"""A made-up search whose record has the true form, a store whose tables are made once a session, and a real MLflow server."""

import csv
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from odn.config import Config, make_config
from odn.data.dataset import Manifest
from odn.files import write_json
from odn.searching.convergence import DepthStep, Verdict
from odn.searching.folder import SearchFolder
from stores import put_store
from tracking.mlflow_server import Server

PARAMS = Path(__file__).parents[2] / "params.yaml"
HISTORY = ("depth", "phase", "epoch", "lr", "train_loss", "train_accuracy", "val_accuracy", "val_loss")


@dataclasses.dataclass(frozen=True)
class MadeUp:
    """Hold a made-up record and the paths that the stages are called with."""

    root: Path
    config: Config
    manifest: Manifest

    def paths(self) -> dict[str, Any]:
        """Return the paths that `track` and `register` read."""
        work = self.root / "work"
        folders = {name: self.root / name for name in ("model", "metrics", "plots", "report")}
        folders["exported"] = self.root / "export"
        return {"prepared": work / "prepared", "search": SearchFolder(work), **folders, "project": self.root}


@pytest.fixture
def settings() -> dict[str, Any]:
    """Give the project's own settings but for a target of 0.97, to be changed at will."""
    content: dict[str, Any] = yaml.safe_load(PARAMS.read_text())
    return {**content, "search": {**content["search"], "mode": "growth", "target": 0.97}}


@pytest.fixture
def make_search(settings: dict[str, Any]) -> Callable[..., MadeUp]:
    """Give a function that writes a whole search: depth 1 expands, depth 2 is accepted (or the schedule ends there)."""

    def make(root: Path, *, test_accuracy: float = 0.98, verdict: str = "target_reached", finished: bool = True, seed: int = 0) -> MadeUp:
        schedule = {"1": {"after": 0}, "2": {"after": 1}}
        config = make_config({**settings, "seed": seed, "search": {**settings["search"], "schedule": schedule}})
        made = MadeUp(root, config, _manifest())
        made.manifest.write(made.paths()["prepared"] / "dataset.json")
        _write_depth(made, depth=1, verdict="expand", accuracies=[0.5, 0.8, 0.9], trial=[])
        _write_depth(made, depth=2, verdict=verdict, accuracies=[0.9, 0.95, 0.96], trial=[0.97, 0.98])
        if finished:
            _write_results(made, verdict=verdict, test_accuracy=test_accuracy)
        return made

    return make


def _manifest() -> Manifest:
    counts = {split: {"total": 10 * n, "per_class": [n] * 10} for split, n in {"train": 120, "val": 27, "test": 36}.items()}
    classes, digests = tuple(str(digit) for digit in range(10)), {"train": "a" * 64, "val": "b" * 64, "test": "c" * 64}
    about: dict[str, Any] = {"source": "digits", "classes": classes, "counts": counts, "sha256": digests}
    return Manifest(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,), **about)


def _write_depth(made: MadeUp, *, depth: int, verdict: str, accuracies: list[float], trial: list[float]) -> None:
    folder, check = made.paths()["search"].trained(depth), made.paths()["search"].judged(depth)
    last = (trial or accuracies)[-1]
    sizes = {"n_params": 75_000 * depth, "size_bytes": 300_000 * depth, "macs": 5_000_000 * depth, "macs_full": 40_000_000}
    step = DepthStep(
        depth=depth, after=depth - 1, epochs=len(accuracies), stopped="flat", why="the curve is flat", val_accuracy=accuracies[-1],
        val_correct=round(270 * accuracies[-1]), n_val=270, curve=tuple(accuracies), cost=0.4 * depth, **sizes,
    )  # fmt: skip
    judged = Verdict(
        depth=depth, verdict=verdict, reason=f"accuracy {last:.2%} on val against the target 97.00%", target=made.config.search.target,  # type: ignore[arg-type]
        accept="point", reached=verdict == "target_reached", val_accuracy=last,
        val_interval=(last - 0.02, last + 0.01), ema_accuracy=accuracies[-1], annealed=bool(trial),
        anneal_epochs=len(trial), cost=0.1 * len(trial),
    )  # fmt: skip
    write_json(folder / "metrics.json", dataclasses.asdict(step))
    write_json(check / "verdict.json", dataclasses.asdict(judged))
    write_history(folder / "history.csv", depth=depth, phases={"stable": accuracies})
    if trial:
        write_history(check / "history.csv", depth=depth, phases={"trial": trial})


def write_history(path: Path, *, depth: int, phases: dict[str, list[float]]) -> None:
    """Write a history.csv with these accuracies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY)
        writer.writeheader()
        for phase, accuracies in phases.items():
            for epoch, accuracy in enumerate(accuracies, start=1):
                writer.writerow(row(depth=depth, phase=phase, epoch=epoch, val_accuracy=accuracy))


def row(*, depth: int, phase: str, epoch: int, val_accuracy: float) -> dict[str, Any]:
    """Make one line of history.csv."""
    losses = {"train_loss": 2 - val_accuracy, "train_accuracy": val_accuracy - 0.05, "val_loss": 1 - val_accuracy}
    return {"depth": depth, "phase": phase, "epoch": epoch, "lr": 0.1, "val_accuracy": val_accuracy, **losses}


def _write_results(made: MadeUp, *, verdict: str, test_accuracy: float) -> None:
    import torch

    from odn.models.network import build
    from odn.models.resnet_shapes import configured
    from odn.models.stored_networks import save_network

    root, manifest = made.root, made.manifest
    architecture = configured(made.config, in_channels=1, n_classes=10, depth=2)
    generator = torch.Generator().manual_seed(made.config.seed)
    save_network(build(architecture, generator), root / "model")
    target, interval = made.config.search.target, (0.96, 0.99)
    shape = {"classes": manifest.classes, "channels": 1, "height": 8, "width": 8, "mean": manifest.mean, "std": manifest.std}
    about = {
        "verdict": verdict,
        "reason": "98.00% on val reaches the target 97.00%",
        "depth": 2,
        "val_accuracy": 0.98,
        "val_interval": interval,
    }
    origin = {"weights_from": "finish", "target": target, "source": "digits", "data_sha256": manifest.sha256, "seed": made.config.seed}
    write_json(root / "model/card.json", {**about, **shape, **origin})
    write_json(root / "model/search.json", about)
    flat = {"verdict": verdict, "depth": 2, "n_blocks": 8, "val_accuracy": 0.98, "val_accuracy_low": 0.96, "val_accuracy_high": 0.99}
    write_json(root / "metrics/search.json", {**flat, "target": target, "full_network_epochs": 1.8})
    saved = {
        "n_params": 149_322,
        "params_saved": 0.986,
        "size_bytes": 600_000,
        "bytes_saved": 0.986,
        "macs": 9_500_000,
        "macs_saved": 0.745,
    }
    full = {"n_params_full": 11_172_810, "size_bytes_full": 44_729_800, "macs_full": 37_000_000}
    tested = {"test_accuracy": test_accuracy, "test_accuracy_low": test_accuracy - 0.02, "test_accuracy_high": test_accuracy + 0.01}
    write_json(root / "metrics/evaluation.json", {**tested, "n_test": 360, **saved, **full})
    machine = {"machine": "a processor", "device": "cpu", "threads": 2, "torch": "2", "precision": "fp32", "height": 8, "width": 8}
    times = {f"latency_{name}{end}": value for end in ("", "_batch128") for name, value in (("ms", 0.8), ("ms_full", 2.0), ("saved", 0.6))}
    write_json(
        root / "metrics/latency.json",
        {**machine, "architecture": architecture.to_dict(), **times, "passes": 30, "spread": 0.01, "busy": False},
    )
    phases = {"stable": [0.9, 0.95, 0.96], "trial": [0.97, 0.98], "finish": [0.97, 0.975, 0.98]}
    write_history(root / "plots/history.csv", depth=2, phases=phases)
    (root / "report").mkdir()
    (root / "report/report.html").write_text("<!doctype html><title>report</title><p>depth 2 of 8</p>")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds a fresh copy of the default store, with nothing of MLflow in the environment."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    put_store(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server on an empty store."""
    folder = tmp_path_factory.mktemp("server")
    put_store(folder)
    running = Server(folder)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Make five images of pixels from 0 to 255."""
    return np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8)).astype(np.float32)
