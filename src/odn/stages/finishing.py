"""What `truncate` trains: the longer cooldown of the accepted depth, and the shaves of the depths before it."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.models.stored_networks import weights_digest
from odn.search.convergence import DepthStep
from odn.search.data import SearchData
from odn.search.expand import Cooled, cool_down, finish_state
from odn.search.outcome import Shave
from odn.search.shaving import Shaved, depths_to_try, exit_of, try_shallower
from odn.stages.states import read_state
from odn.stages.teachers import read_teacher, teaching_inputs
from odn.stages.working import follow, progress_key
from odn.training.checkpoint import in_progress
from odn.training.fit import EpochRow


@dataclass(frozen=True)
class Workshop:
    """Say where training states are and where interrupted phases are kept, until `held` is closed."""

    config: Config
    data: SearchData
    depths: Path
    progress: Path
    held: contextlib.ExitStack


@dataclass(frozen=True)
class Shaves:
    """Hold the tries, their epochs, and the network of the shallowest that is good enough; None where the first was not."""

    tries: tuple[Shave, ...]
    rows: tuple[EpochRow, ...]
    network: DepthNetwork | None


def finish(shop: Workshop, *, depth: int, epochs: int, epochs_before: int) -> Cooled:
    """Anneal a depth for longer than its probe did, or train the depth anew; whoever taught it is its teacher here too."""
    config, data, state_file = shop.config, shop.data, shop.depths / str(depth) / "state.safetensors"
    state = finish_state(read_state(state_file, machine=data.machine), data=data, config=config)
    teacher = read_teacher(config, shop.depths / str(depth), data=data)
    inputs = [epochs, config.finish.start, data.manifest.sha256, state_file, *teaching_inputs(config, teacher)]
    key = progress_key(config, "seed", "train", "augment", inputs=inputs)
    checkpoint = shop.held.enter_context(in_progress(shop.progress / "truncate" / f"{key}.safetensors"))
    events = cool_down(state, data=data, config=config, name="finish", epochs=epochs, checkpoint=checkpoint, teacher=teacher)
    return follow(events, Cooled, config=config, data=data, depth=depth, phase="finish", epochs=epochs, epochs_before=epochs_before)


def shave(shop: Workshop, network: DepthNetwork, *, steps: Mapping[int, DepthStep], epochs_before: Mapping[int, int]) -> Shaves:
    """Try the depths before that of the accepted network, nearest first, until one is not good enough; as `shaving.shave` does."""
    config, data = shop.config, shop.data
    tries: list[Shaved] = []
    teacher, above = network, network.depth
    for depth in depths_to_try(config, network.depth):
        own, deeper = (shop.depths / str(one) / "state.safetensors" for one in (depth, above))
        file = deeper if config.search.distill == "exits" else own
        state = read_state(file, machine=data.machine)
        state = exit_of(state, depth) if file is deeper else state
        inputs = [data.manifest.sha256, file, weights_digest(teacher), config.search.distill]
        key = progress_key(config, "seed", "train", "augment", "distill", inputs=inputs)
        checkpoint = shop.held.enter_context(in_progress(shop.progress / f"shave-{depth}" / f"{key}.safetensors"))
        events = try_shallower(state, teacher=teacher, step=steps[depth], data=data, config=config, checkpoint=checkpoint)
        tried = follow(
            events,
            Shaved,
            config=config,
            data=data,
            depth=depth,
            phase="shave",
            epochs=config.distill.shave_epochs,
            epochs_before=epochs_before[depth],
        )
        tries.append(tried)
        if not tried.shave.reached:
            break
        teacher, above = tried.cooled.network, depth
    rows = tuple(row for tried in tries for row in tried.cooled.rows)
    return Shaves(tuple(tried.shave for tried in tries), rows, None if teacher is network else teacher)
