"""Train one depth: grown from the depth before it, until its curve on val is flat, whatever the target; or as `search.mode` says.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{after}, work/gates/{after}.json
Writes: work/depths/{depth}
Config: seed, data, model, train, augment, growth, search.mode, paper
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from odn.config import Config
from odn.files import new_folder, write_json
from odn.search.convergence import DepthStep
from odn.stages.records import SKIPPED, history_rows, read_gate, write_table

if TYPE_CHECKING:
    from odn.search.data import SearchData
    from odn.training.loop import EpochRow


def run(config: Config, *, depth: int, after: int, prepared: Path, before: Path, gate: Path, out: Path, progress: Path) -> DepthStep | None:
    """Train `depth` and write its folder; behind a closed gate write a marker and return None, before torch is imported.

    Raises:
        MissingInputError: prepared data, the gate or the depth before is missing.
        TrainingError: the loss is not finite.
    """
    if not read_gate(gate, made_by=f"check@{after}" if after else "open").is_open:
        with new_folder(out) as folder:
            write_json(folder / "metrics.json", {"depth": depth, **SKIPPED})
        return None
    train = _train_published if config.search.mode == "paper" else _train
    return train(config, depth=depth, after=after, prepared=prepared, before=before, out=out, progress=progress)


def _train(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    from odn.models.network import save_network
    from odn.search.expand import Trained, train_depth
    from odn.stages.trunk import read_trunk, write_trunk
    from odn.stages.working import follow, opened
    from odn.training.checkpoint import in_progress

    data = opened(prepared, train=config.train)
    grows = after and config.search.mode == "growth"
    trunk = read_trunk(before / "trunk.safetensors", machine=data.machine) if grows else None
    with in_progress(progress / f"train-{depth}" / _checkpoint(config, data, before=before)) as checkpoint:
        events = train_depth(trunk, data=data, config=config, depth=depth, checkpoint=checkpoint)
        trained = follow(
            events, Trained, config=config, data=data, depth=depth, phase="stable", epochs=config.growth.max_epochs, epochs_before=0
        )
        with new_folder(out) as folder:
            save_network(trained.optimiser.average.truncated(depth), folder)
            write_trunk(folder / "trunk.safetensors", trained.optimiser)
            _write_record(folder, trained.step, trained.rows)
    return trained.step


def _train_published(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    """Train as published; the trunk that is handed on from depth to depth is the warm-up, which stays as it is."""
    from odn.models.network import load_weights, save_network, save_weights
    from odn.search.published import Published, Warm, train_published, untrained, warm_up
    from odn.stages.working import follow, opened
    from odn.training.checkpoint import in_progress

    data, is_first = opened(prepared, train=config.train), after == 0
    name, trunk = _checkpoint(config, data, before=before), before / "trunk.safetensors"
    with in_progress(progress / "warm-up" / name) as warming, in_progress(progress / f"train-{depth}" / name) as checkpoint:
        show = functools.partial(follow, config=config, data=data, depth=depth, epochs_before=0)
        if is_first:
            events = warm_up(data=data, config=config, checkpoint=warming)
            warm = show(events, Warm, phase="warm-up", epochs=config.paper.warmup_epochs).network
        else:
            warm = untrained(data, config)
            load_weights(warm, trunk)
        published = train_published(warm, data=data, config=config, depth=depth, is_first=is_first, checkpoint=checkpoint)
        done = show(published, Published, phase="stable", epochs=config.growth.max_epochs)
        with new_folder(out) as folder:
            save_network(done.network, folder)
            save_weights(warm, folder / "trunk.safetensors")
            _write_record(folder, done.step, done.rows)
    return done.step


def _checkpoint(config: Config, data: "SearchData", *, before: Path) -> str:
    from odn.stages.working import progress_key

    sections = ("seed", "data", "model", "train", "augment", "growth", "paper")
    inputs = [config.search.mode, data.manifest.sha256, before / "trunk.safetensors"]
    return f"{progress_key(config, *sections, inputs=inputs)}.safetensors"


def _write_record(folder: Path, step: DepthStep, rows: "Sequence[EpochRow]") -> None:
    write_table(folder / "history.csv", history_rows(rows))
    write_json(folder / "metrics.json", asdict(step))
