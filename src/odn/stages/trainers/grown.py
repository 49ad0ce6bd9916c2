"""Train a depth grown from the depth before it, or, in a grid or alone, from fresh weights."""

from pathlib import Path

from odn.config import Config
from odn.files import new_folder
from odn.models.network import save_network
from odn.search.convergence import DepthStep
from odn.search.expand import Trained, train_depth
from odn.stages.trainers.kept import checkpoint_name, write_record
from odn.stages.trunk import read_trunk, write_trunk
from odn.stages.working import follow, opened
from odn.training.checkpoint import in_progress


def train_grown(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    """Train until the curve on val is flat and write the depth's folder."""
    data = opened(prepared, train=config.train)
    grows = after and config.search.mode == "growth"
    trunk = read_trunk(before / "trunk.safetensors", machine=data.machine) if grows else None
    with in_progress(progress / f"train-{depth}" / checkpoint_name(config, data, before=before)) as checkpoint:
        events = train_depth(trunk, data=data, config=config, depth=depth, checkpoint=checkpoint)
        trained = follow(
            events, Trained, config=config, data=data, depth=depth, phase="stable", epochs=config.growth.max_epochs, epochs_before=0
        )
        with new_folder(out) as folder:
            save_network(trained.optimiser.average.truncated(depth), folder)
            write_trunk(folder / "trunk.safetensors", trained.optimiser)
            write_record(folder, trained.step, trained.rows)
    return trained.step
