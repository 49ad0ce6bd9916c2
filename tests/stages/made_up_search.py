"""A finished search on tiny data that nothing was trained for: records of the true form, judged and truncated by the real code."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from odn.commands import show
from odn.config import Config, make_config
from odn.data.dataset import Manifest
from odn.files import sha256_of, write_bytes, write_json
from odn.models.ladder import ladder_of
from odn.models.resnet_shapes import resnet_architecture
from odn.report.summary import Summary
from odn.searching.convergence import DepthStep, Trial, judge
from odn.searching.folder import SearchFolder
from odn.searching.records import write_table
from odn.searching.statistics import wilson_interval
from odn.stages import report, truncate

PARAMS = Path(__file__).parents[2] / "params.yaml"
N_VAL, N_TEST = 200, 60
SEARCH = {"mode": "growth", "target": 0.97, "accept": "point", "confidence": 0.95, "cooldown_epochs": 2, "cooldown_gain": 0.5}
SEARCH |= {"ladder": "spread", "cost": "bytes", "looks": 2}
SEARCH |= {"max_bytes": None, "max_macs": None, "max_params": None}
FULL = {"n_params": 11_172_810, "size_bytes": 44_729_800, "macs": 34_644_992}
SHARES = {1: (75_338, 302_912, 4_756_096), 2: (149_322, 599_888, 9_474_688), 3: (379_722, 1_523_536, 12_767_872)}  # of FULL


@dataclasses.dataclass(frozen=True)
class MadeUpSearch:
    """Be a folder with all that a search leaves."""

    folder: Path
    config: Config
    busy: bool = False  # when it was timed
    duplicates: dict[str, int] = dataclasses.field(default_factory=dict)

    def report(self, out: str = "report") -> Path:
        """Run the stage `report`, and return its folder."""
        report.run(
            self.config,
            prepared=self.folder / "work/prepared",
            model=self.folder / "model",
            metrics=self.folder / "metrics",
            plots=self.folder / "plots",
            evaluation=self.folder / "work/evaluation",
            exported=self.folder / "export",
            out=self.folder / out,
        )
        return self.folder / out

    def page(self) -> str:
        """Return what report.html holds."""
        return (self.report() / "report.html").read_text(encoding="utf-8")

    def show(self, *, config: Config | None = None) -> Summary:
        """Run `odn show`, with other settings if asked."""
        paths = {name: self.folder / name for name in ("model", "metrics", "report")}
        registered_weights, registration = self.folder / "work/registered.json", self.folder / ".odn/registration.json"
        paths["exported"] = self.folder / "export"
        return show.run(config or self.config, registered_weights=registered_weights, registration=registration, **paths)

    def register(self, registration: dict[str, Any]) -> None:
        """Write what the stage `register` would."""
        registered_weights = {"name": "odn-digits", "weights_sha256": sha256_of(self.folder / "model/weights.safetensors")}
        write_json(self.folder / "work/registered.json", registered_weights)
        write_json(self.folder / ".odn/registration.json", registration)

    def other_config(self, **search: Any) -> Config:
        """Return the settings with some of the search's changed."""
        settings = self.config.model_dump(mode="json")
        return make_config({**settings, "search": {**settings["search"], **search}})


def make_search(
    folder: Path,
    *,
    right: Sequence[tuple[int, int | None]] = ((170, None), (192, 198)),
    classes: Sequence[str] = ("cat", "dog", "owl"),
    n_wrong: int = 6,
    channels: int = 1,
    busy: bool = False,
    duplicates: dict[str, int] | None = None,
    **search: Any,
) -> MadeUpSearch:
    """Write a search whose depths got `right` of 200 val images right: before, and after a cooldown where there was one."""
    settings = yaml.safe_load(PARAMS.read_text())
    settings["search"] = SEARCH | {"schedule": list(range(1, len(right) + 1)), **search}
    settings["model"] |= {"backbone": "resnet18", "stem": "cifar", "width": 1.0}
    settings["registry"]["name"] = "odn-digits"
    made = MadeUpSearch(folder, make_config({**settings, "seed": 0, "finish": {"epochs": 0}}), busy, duplicates or {})
    _write_test(made, classes=tuple(classes), n_wrong=n_wrong, channels=channels)
    for depth, (ema_correct, trial) in enumerate(right, start=1):
        _write_depth(made, depth=depth, ema_correct=ema_correct, trial=trial, channels=channels, n_classes=len(classes))
    work = folder / "work"
    flat = truncate.run(
        made.config,
        prepared=work / "prepared",
        search=SearchFolder(work),
        model=folder / "model",
        metrics=folder / "metrics/search.json",
        plots=folder / "plots",
        progress=folder / ".odn",
    )
    _write_evaluation(made, depth=flat["depth"], n_wrong=n_wrong)
    return made


def costs(depth: int) -> dict[str, int]:
    """Return what a network of this depth costs: from the table, made up beyond it."""
    known = SHARES.get(depth) or tuple(round(value * depth / 8) for value in FULL.values())
    return dict(zip(FULL, known, strict=True))


def _write_test(made: MadeUpSearch, *, classes: tuple[str, ...], n_wrong: int, channels: int) -> None:
    prepared, n_classes, shape = made.folder / "work/prepared", len(classes), (channels, 8, 8)
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (N_TEST, *shape), dtype=np.uint8), np.arange(N_TEST, dtype=np.int64) % n_classes
    (prepared / "test").mkdir(parents=True)
    np.save(prepared / "test/images.npy", images)
    np.save(prepared / "test/labels.npy", labels)
    digest = sha256_of(prepared / "test/images.npy", prepared / "test/labels.npy")
    sizes = {"train": 1200, "val": N_VAL, "test": N_TEST}
    counts = {split: {"total": n, "per_class": [len(range(k, n, n_classes)) for k in range(n_classes)]} for split, n in sizes.items()}
    Manifest(
        source="digits", classes=classes, channels=channels, height=8, width=8, mean=(0.5,) * channels, std=(0.2,) * channels,
        counts=counts, sha256={"train": "a" * 64, "val": "b" * 64, "test": digest}, duplicates=made.duplicates,
    ).write(prepared / "dataset.json")  # fmt: skip
    rows = [
        {"index": n, "label": int(label), "predicted": int(label + (n < n_wrong)) % n_classes, "confidence": 0.5 + n / 200}
        for n, label in enumerate(labels)
    ]
    (made.folder / "work/evaluation").mkdir()
    write_table(made.folder / "work/evaluation/predictions.csv", rows)


def _write_depth(made: MadeUpSearch, *, depth: int, ema_correct: int, trial: int | None, channels: int, n_classes: int) -> None:
    trained, check, accuracy = made.folder / f"work/depths/{depth}", made.folder / f"work/checks/{depth}", ema_correct / N_VAL
    curve = (accuracy - 0.3, accuracy - 0.1, accuracy - 0.02, accuracy)
    kept = costs(depth)
    step = DepthStep(
        depth=depth, after=depth - 1, epochs=4, stopped="flat", why="the curve is flat", val_accuracy=accuracy, val_correct=ema_correct,
        n_val=N_VAL, curve=curve, macs_full=FULL["macs"], cost=4 * kept["macs"] / FULL["macs"], **kept,
    )  # fmt: skip
    write_json(trained / "metrics.json", dataclasses.asdict(step))
    write_table(trained / "history.csv", _history(depth, "stable", curve))
    cooled = Trial(n_correct=trial, n=N_VAL, epochs=2, cost=2 * kept["macs"] / FULL["macs"]) if trial is not None else None
    write_json(check / "verdict.json", dataclasses.asdict(judge(step, made.config.search, trial=cooled)))
    if trial is not None:
        write_table(check / "history.csv", _history(depth, "trial", (accuracy, trial / N_VAL)))
    architecture, annealed = resnet_architecture("resnet18", in_channels=channels, n_classes=n_classes, depth=depth), check
    if made.config.search.mode == "climb":
        architecture, annealed = ladder_of(architecture.whole, config=made.config, height=8, width=8)[depth - 1], trained
    if trial is not None or annealed == trained:
        write_json(annealed / "architecture.json", architecture.to_dict())
        write_bytes(annealed / "weights.safetensors", b"no weights")


def _history(depth: int, phase: str, curve: Sequence[float]) -> list[dict[str, Any]]:
    same = {"depth": depth, "phase": phase}
    return [
        {
            **same,
            "epoch": epoch,
            "lr": 0.1,
            "train_loss": 1.0,
            "train_accuracy": max(0.0, accuracy - 0.1),
            "val_accuracy": accuracy,
            "val_loss": 1.0,
        }
        for epoch, accuracy in enumerate(curve, start=1)
    ]


def _write_evaluation(made: MadeUpSearch, *, depth: int, n_wrong: int) -> None:
    low, high = wilson_interval(N_TEST - n_wrong, N_TEST, confidence=0.95)
    record: dict[str, Any] = {"test_accuracy": 1 - n_wrong / N_TEST, "test_accuracy_low": low, "test_accuracy_high": high, "n_test": N_TEST}
    for name, value in costs(depth).items():
        saved = {"n_params": "params", "size_bytes": "bytes", "macs": "macs"}[name]
        record |= {name: value, f"{name}_full": FULL[name], f"{saved}_saved": 1 - value / FULL[name]}
    if depth > 1:
        record |= {"shallower_depth": depth - 1, "test_accuracy_shallower": 0.85, "mcnemar_p_shallower": 0.0312}
    write_json(made.folder / "metrics/evaluation.json", record)
    architecture = json.loads((made.folder / "model/architecture.json").read_text())
    machine = {"machine": "a processor", "device": "cpu", "threads": 2, "torch": "2.9.1", "precision": "fp32", "height": 8, "width": 8}
    machine |= {"architecture": architecture, "passes": 30, "spread": 0.01, "busy": made.busy}
    latency = {"latency_ms": 0.5, "latency_ms_full": 2.5, "latency_saved": 0.8}
    batch = {"latency_ms_batch128": 30.0, "latency_ms_full_batch128": 120.0, "latency_saved_batch128": 0.75}
    write_json(made.folder / "metrics/latency.json", machine | latency | batch)
