"""Train one depth, grown from the depth before it, until its curve on val is flat; the target plays no part.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{after}, work/gates/{after}.json
Writes: work/depths/{depth}
Config: seed, data, model, train, augment, growth
"""

from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, write_json
from odn.search.convergence import DepthStep
from odn.stages.records import SKIPPED, history_rows, read_gate, write_table


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
    return _train(config, depth=depth, after=after, prepared=prepared, before=before, out=out, progress=progress)


def _train(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    from odn.models.network import save_network
    from odn.search.expand import Trained, train_depth
    from odn.stages.trunk import read_trunk, write_trunk
    from odn.stages.working import follow, opened, progress_key
    from odn.training.checkpoint import in_progress

    data = opened(prepared, train=config.train)
    trunk = read_trunk(before / "trunk.safetensors", machine=data.machine) if after else None
    key = progress_key(
        config, "seed", "data", "model", "train", "augment", "growth", inputs=[data.manifest.sha256, before / "trunk.safetensors"]
    )
    with in_progress(progress / f"train-{depth}" / f"{key}.safetensors") as checkpoint:
        events = train_depth(trunk, data=data, config=config, depth=depth, checkpoint=checkpoint)
        trained = follow(
            events, Trained, config=config, data=data, depth=depth, phase="stable", epochs=config.growth.max_epochs, epochs_before=0
        )
        with new_folder(out) as folder:
            save_network(trained.optimiser.average.truncated(depth), folder)
            write_trunk(folder / "trunk.safetensors", trained.optimiser)
            write_table(folder / "history.csv", history_rows(trained.rows))
            write_json(folder / "metrics.json", asdict(trained.step))
    return trained.step
