"""Train all depths at once with the first; each later depth is an exit of the same network, and trains nothing."""

import shutil
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.files import new_folder, write_json
from odn.models.stored_networks import load_network, save_network
from odn.search.convergence import DepthStep
from odn.search.data import SearchData
from odn.search.supernet import Supernet, exit_step, train_supernet
from odn.stages.records import write_table
from odn.stages.trainers.kept import checkpoint_name, write_record
from odn.stages.working import follow, opened
from odn.training.checkpoint import in_progress

SUPERNET = "supernet"  # folder of the network with all exits, in the folder of each depth


def train_in_supernet(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    """Write the depth's folder: its exit, and the supernet that it is part of, for the next depth."""
    data = opened(prepared, config=config)
    if after == 0:
        return _trained(config, data=data, depth=depth, before=before, out=out, progress=progress)
    network = load_network(before / SUPERNET)
    step = exit_step(network, data=data, config=config, depth=depth, trained=None)
    with new_folder(out) as folder:
        shutil.copytree(before / SUPERNET, folder / SUPERNET)
        save_network(network.truncated(depth), folder)
        write_record(folder, step, ())
    return step


def _trained(config: Config, *, data: SearchData, depth: int, before: Path, out: Path, progress: Path) -> DepthStep:
    epochs = config.supernet.epochs
    with in_progress(progress / f"train-{depth}" / checkpoint_name(config, data, before=before)) as checkpoint:
        events = train_supernet(data=data, config=config, checkpoint=checkpoint)
        trained = follow(events, Supernet, config=config, data=data, depth=depth, phase="supernet", epochs=epochs, epochs_before=0)
        step = exit_step(trained.network, data=data, config=config, depth=depth, trained=trained)
        with new_folder(out) as folder:
            save_network(trained.network, folder / SUPERNET)
            write_table(folder / SUPERNET / "exits.csv", _curves(trained))
            write_json(folder / SUPERNET / "card.json", _card(config, data))
            save_network(trained.network.truncated(depth), folder)
            write_record(folder, step, trained.rows)
    return step


def _card(config: Config, data: SearchData) -> dict[str, Any]:
    """Say what was trained together, on which data."""
    plan = {"depths": config.search.schedule, "widths": config.supernet.widths}
    return plan | {"seed": config.seed, "data_sha256": data.manifest.sha256}


def _curves(trained: Supernet) -> list[dict[str, float]]:
    """Return accuracy on val of each exit after each epoch."""
    curves = trained.curves
    return [
        {"epoch": epoch, "depth": depth, "val_accuracy": right[epoch - 1] / curves.n_val}
        for epoch in range(1, len(trained.rows) + 1)
        for depth, right in curves.n_correct.items()
    ]
