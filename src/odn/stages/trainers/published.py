"""Train a depth as published."""

import functools
from pathlib import Path

from odn.config import Config
from odn.files import new_folder
from odn.models.stored_networks import load_weights, save_network, save_weights
from odn.search.convergence import DepthStep
from odn.search.published import Published, Warm, train_published, untrained, warm_up
from odn.stages.trainers.kept import checkpoint_name, write_record
from odn.stages.working import follow, opened
from odn.training.checkpoint import in_progress


def train_as_published(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    """Train from the warm-up, which is handed on from depth to depth as it is, and write the depth's folder."""
    data, is_first = opened(prepared, config=config), after == 0
    name, state = checkpoint_name(config, data, before=before), before / "state.safetensors"
    with in_progress(progress / "warm-up" / name) as warming, in_progress(progress / f"train-{depth}" / name) as checkpoint:
        show = functools.partial(follow, config=config, data=data, depth=depth, epochs_before=0)
        if is_first:
            events = warm_up(data=data, config=config, checkpoint=warming)
            warm = show(events, Warm, phase="warm-up", epochs=config.paper.warmup_epochs).network
        else:
            warm = untrained(data, config)
            load_weights(warm, state)
        published = train_published(warm, data=data, config=config, depth=depth, is_first=is_first, checkpoint=checkpoint)
        done = show(published, Published, phase="stable", epochs=config.growth.max_epochs)
        with new_folder(out) as folder:
            save_network(done.network, folder)
            save_weights(warm, folder / "state.safetensors")
            write_record(folder, done.step, done.rows)
    return done.step
