"""Train a depth grown from the depth before it, or, in a grid or alone, from fresh weights."""

import contextlib
from pathlib import Path

from odn.config import Config
from odn.files import new_folder
from odn.models.stored_networks import save_network
from odn.search.convergence import DepthStep
from odn.search.expand import Trained, train_depth
from odn.stages.states import read_state, write_state
from odn.stages.teachers import teaching_inputs
from odn.stages.trainers.kept import checkpoint_name, write_record
from odn.stages.trainers.taught import bring_teacher, write_teacher
from odn.stages.working import follow, opened
from odn.training.checkpoint import in_progress


def train_grown(config: Config, *, depth: int, after: int, prepared: Path, before: Path, out: Path, progress: Path) -> DepthStep:
    """Train until the curve on val is flat and write the depth's folder."""
    data = opened(prepared, config=config)
    grows = after and config.search.mode == "growth"
    state = read_state(before / "state.safetensors", machine=data.machine) if grows else None
    with contextlib.ExitStack() as held:
        brought = bring_teacher(config, data=data, state=state, after=after, before=before, progress=progress, held=held)
        teacher = brought.teacher if brought is not None else None
        name = checkpoint_name(config, data, before=before, inputs=teaching_inputs(config, teacher))
        checkpoint = held.enter_context(in_progress(progress / f"train-{depth}" / name))
        events = train_depth(state, data=data, config=config, depth=depth, checkpoint=checkpoint, teacher=teacher)
        trained = follow(
            events, Trained, config=config, data=data, depth=depth, phase="stable", epochs=config.growth.max_epochs, epochs_before=0
        )
        with new_folder(out) as folder:
            save_network(trained.state.average.truncated(depth), folder)
            write_state(folder / "state.safetensors", trained.state)
            write_record(folder, trained.step, trained.rows)
            if brought is not None:
                write_teacher(folder / "teacher", brought, data=data)
    return trained.step
