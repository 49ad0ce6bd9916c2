"""Open prepared data for training, and follow a phase while it runs: on the screen and, where it takes long, in MLflow."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch

from odn import __version__
from odn.config import Config
from odn.data.dataset import read_manifest, verified_split
from odn.display import phase_display
from odn.files import sha256_of
from odn.search.data import SearchData, backbone_of, costs_at, search_data
from odn.tracking import live_run
from odn.training.device import choose_machine
from odn.training.fit import EpochRow, Tick

T = TypeVar("T")


def opened(prepared: Path, *, config: Config) -> SearchData:
    """Open train and val on the device that the config asks for, with the threads that it gives; the test split is not touched.

    Raises:
        MissingInputError: data is not prepared.
        DataError: it is not what was prepared.
        ConfigError: the device is not there.
    """
    manifest = read_manifest(prepared / "dataset.json")
    backbone = backbone_of(config, manifest)
    machine = choose_machine(config.train, macs=costs_at(backbone, manifest).macs)
    train, val = (verified_split(prepared / name, manifest=manifest) for name in ("train", "val"))
    return search_data(train, val, manifest=manifest, machine=machine, backbone=backbone)


def progress_key(config: Config, *sections: str, inputs: Iterable[Any]) -> str:
    """Return a name for an interrupted phase that only the same settings, inputs, versions and number of threads share.

    That number is what `opened` left: sums over another number of threads have other bytes.
    """
    settings = json.loads(config.to_json())
    digests = [sha256_of(item) if isinstance(item, Path) and item.exists() else str(item) for item in inputs]
    content = [__version__, torch.__version__, torch.get_num_threads(), {name: settings[name] for name in sections}, digests]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def follow(
    events: Iterable[object],
    kind: type[T],
    *,
    config: Config,
    data: SearchData,
    depth: int,
    phase: str,
    epochs: int,
    epochs_before: int,
) -> T:
    """Run a phase to its end, showing each epoch, and return what it leaves.

    `epochs` is the most that it may take, `epochs_before` what the depth took in the phases before it.
    """
    last: object = None
    with (
        live_run(config, data_sha256=data.manifest.sha256, depth=depth, phase=phase, steps_before=epochs_before) as live,
        phase_display(depth=depth, phase=phase, epochs=epochs) as display,
    ):
        for last in events:
            if isinstance(last, Tick):
                display.tick(epoch=last.epoch, step=last.step, steps=last.steps)
            elif isinstance(last, EpochRow):
                display.row(epoch=last.epoch, val_accuracy=last.val_accuracy, train_loss=last.train_loss)
                live.log(vars(last))
    assert isinstance(last, kind)
    return last
