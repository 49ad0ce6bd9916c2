"""Real digits, a small network and a few epochs: a whole search in about a second."""

from pathlib import Path
from typing import Any

import yaml

from odn.config import Config, make_config
from odn.data.dataset import read_manifest, read_split
from odn.searching.data import SearchData, backbone_of, costs_at, search_data
from odn.stages import fetch, prepare
from odn.training.device import choose_machine

PARAMS = Path(__file__).parents[2] / "params.yaml"


def small_config(**changes: dict[str, Any]) -> Config:
    """Return the settings that ship, for 300 digits and an eighth of the channels, with some sections changed."""
    settings = yaml.safe_load(PARAMS.read_text())
    small: dict[str, dict[str, Any]] = {
        "data": {"max_images": 300, "val_fraction": 0.3},
        "model": {"width": 0.125},
        "train": {"batch_size": 32, "warmup_epochs": 0.5, "precision": "fp32"},  # so that processors differ little
        "growth": {"min_epochs": 2, "max_epochs": 3, "patience": 1},
        "search": {"mode": "growth", "target": 0.45, "cooldown_epochs": 2, "cooldown_gain": 1.0, "schedule": [1, 2, 3]},
        "paper": {"max_epochs": 3},
        "finish": {"epochs": 2},
    }
    for name in small | changes:
        settings[name].update(small.get(name, {}) | changes.get(name, {}))
    return make_config(settings)


def prepare_digits(config: Config, folder: Path) -> Path:
    """Fetch and prepare digits below `folder`; return where the splits are."""
    prepared = folder / "work" / "prepared"
    fetch.run(config, downloads=folder / "data")
    splits = {split: prepared / split for split in ("train", "val", "test")}
    prepare.run(config, data=folder / "data", manifest=prepared / "dataset.json", progress=folder / "progress", **splits)
    return prepared


def open_data(config: Config, prepared: Path) -> SearchData:
    """Open train and val for training."""
    manifest = read_manifest(prepared / "dataset.json")
    backbone = backbone_of(config, manifest)
    machine = choose_machine(config.train, macs=costs_at(backbone, manifest).macs)
    return search_data(read_split(prepared / "train"), read_split(prepared / "val"), manifest=manifest, machine=machine, backbone=backbone)
