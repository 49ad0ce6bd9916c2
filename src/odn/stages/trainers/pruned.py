"""Train a depth and prune it in the same run."""

from pathlib import Path

from odn.config import Config
from odn.files import new_folder
from odn.models.stored_networks import save_network
from odn.search.convergence import DepthStep
from odn.search.pruning import Pruned, train_pruned
from odn.stages.states import write_state
from odn.stages.trainers.kept import checkpoint_name, write_record
from odn.stages.working import follow, opened
from odn.training.checkpoint import in_progress


def train_and_prune(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:  # noqa: ARG001
    """Train from fresh weights, cut what the budget does not hold, and write the folder of what is left."""
    data = opened(prepared, config=config)
    with in_progress(progress / f"train-{depth}" / checkpoint_name(config, data, before=before)) as checkpoint:
        events = train_pruned(data=data, config=config, depth=depth, checkpoint=checkpoint)
        done = follow(events, Pruned, config=config, data=data, depth=depth, phase="stable", epochs=config.prune.epochs, epochs_before=0)
        with new_folder(out) as folder:
            save_network(done.network, folder)
            write_state(folder / "state.safetensors", done.state)
            write_record(folder, done.step, done.rows)
    return done.step
