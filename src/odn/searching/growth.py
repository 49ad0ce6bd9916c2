"""Progressive depth expansion: a depth is grown from the one before it, or trained from fresh weights, until its curve on val is flat.

What is inherited from depth to depth is the `TrainState`: weights, momentum, averaged weights.
Source: Tareen and Tareen, arXiv 2510.10764; function-preserving growth: Chen et al. (Net2Net), arXiv 1511.05641.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.models.architecture import Architecture
from odn.models.expansion import carried, expanded
from odn.models.network import DepthNetwork, build
from odn.searching.convergence import DepthStep, Stop, Trial, why_stop
from odn.searching.data import SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run_phase
from odn.searching.states import read_state, write_state
from odn.searching.strategy import DEPENDS_ON, Began, Event, Inherited, Job, Trained
from odn.searching.teachers import Teaching, inputs_of, read_teacher, teaching_of, trained_teaching, write_teacher
from odn.searching.teaching import TrainedTeacher, comes_from_outside, objective_of, pass_macs, train_teacher
from odn.training.depth_task import Phase
from odn.training.fit import EpochRow, Tick
from odn.training.objective import Teacher
from odn.training.seed import generator
from odn.training.state import TrainState

EXAMPLE_IMAGES = 256  # training images that a shortcut at a group change takes its statistics from


@dataclass(frozen=True)
class Grown:
    """Hold what the stable phase of a depth leaves; `state.average` is the network of the averaged weights."""

    state: TrainState
    step: DepthStep
    rows: tuple[EpochRow, ...]


@dataclass(frozen=True)
class Cooled:
    """Hold what a cooldown leaves: a network ready for use, and what it got right on val."""

    network: DepthNetwork
    trial: Trial
    rows: tuple[EpochRow, ...]


class Growth:
    """Train a depth grown from the one before it or, where the mode does not inherit, from fresh weights."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a depth; before the first, find who teaches."""
        data, config, depth, checkpoints = job.data, job.config, job.depth, job.checkpoints
        teaching = None
        for event in _teaching(inherited, job):
            if isinstance(event, Teaching):
                teaching = event
            else:
                yield event
        before = inherited.state if inherited is not None and config.mode.inherits else None
        teacher = teaching.teacher if teaching is not None else None
        checkpoint = checkpoints.of(f"train-{depth}", *DEPENDS_ON, inputs=[config.search.mode, *inputs_of(config, teaching)])
        yield Began(depth, "stable", config.growth.max_epochs)
        for done in train_depth(before, data=data, config=config, depth=depth, checkpoint=checkpoint, teacher=teacher):
            if isinstance(done, Grown):
                network, left = done.state.average.truncated(depth), Inherited(state=done.state, teaching=teaching)
                yield Trained(network, left, done.step, done.rows)
            else:
                yield done

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the training state, and who taught."""
        assert trained.inherited.state is not None, "a depth that was trained has one"
        write_state(folder / "state.safetensors", trained.inherited.state)
        if trained.inherited.teaching is not None:
            write_teacher(folder / "teacher", trained.inherited.teaching)

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the training state, and who taught."""
        state, distill = read_state(folder / "state.safetensors", machine=data.machine), config.search.distill
        taught = comes_from_outside(config) or (distill == "shallower" and (folder / "teacher").exists())
        return Inherited(state=state, teaching=read_teacher(folder / "teacher", data=data) if taught else None)


STRATEGY = Growth()


def _teaching(inherited: Inherited | None, job: Job) -> Iterator[Event | Teaching]:
    """Find who teaches a depth, as `search.distill` says; end with `Teaching` where anybody does."""
    data, config = job.data, job.config
    if comes_from_outside(config):
        if inherited is not None:
            assert inherited.teaching is not None, "it is read with the depth before"
            yield inherited.teaching
        elif job.outside is not None:
            yield job.outside()
        elif config.search.distill == "full":
            epochs, depth = config.distill.epochs, data.backbone.depth
            inputs = [epochs, config.growth.shortcut, *data.manifest.sha256.values()]
            # Kept when it is done: another weight or temperature asks for the same teacher again, and the answer is there.
            checkpoint = job.checkpoints.of("teacher", "seed", "model", "train", "augment", inputs=inputs, keep=True)
            yield Began(depth, "teacher", epochs)
            for event in train_teacher(data=data, config=config, checkpoint=checkpoint):
                yield trained_teaching(event, data=data) if isinstance(event, TrainedTeacher) else event
        else:
            raise ValueError(f"search.distill {config.search.distill}: a teacher must be given")
    elif config.search.distill == "shallower" and inherited is not None:
        assert inherited.state is not None, "depths that are grown have one"
        network = inherited.state.average
        yield teaching_of(network, name=f"depth {network.depth}", data=data)


def train_depth(
    before: TrainState | None, *, data: SearchData, config: Config, depth: int, checkpoint: Path | None, teacher: Teacher | None = None
) -> Iterator[Tick | EpochRow | Grown]:
    """Run the stable phase of a depth, grown from `before` or, where that is None, built from the seed; end with `Grown`.

    `teacher` is who teaches it (see `teaching.teacher_of`), whose forward passes are in its cost.
    Where depths are not grown from one another it takes `growth.max_epochs`, whatever the curve.
    """
    after = before.network.depth if before is not None else 0
    state = grown(before, data=data, config=config, depth=depth)
    phase = Phase(
        name="stable",
        depth=depth,
        epochs=config.growth.max_epochs,
        seed=config.seed,
        warmup_epochs=config.train.warmup_epochs,
    )
    aux_depth = after if config.train.aux_weight > 0 else 0
    objective = objective_of(config, state.network, teacher=teacher, aux_depth=aux_depth)
    rows: list[EpochRow] = []
    stop = None
    for event in run_phase(state, phase, data=data, config=config, checkpoint=checkpoint, objective=objective):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
            stop = _stop([row.val_accuracy for row in rows], config)
            if stop is not None:
                break
    assert stop is not None, "max_epochs ends every curve"
    architecture = state.network.architecture
    costs, full = costs_at(architecture, data.manifest), full_network_cost(architecture, data.manifest)
    macs = pass_macs(architecture, teacher=teacher, manifest=data.manifest)
    yield Grown(
        state=state,
        rows=tuple(rows),
        step=DepthStep(
            depth=depth,
            after=after,
            epochs=len(rows),
            stopped=stop.kind,
            why=stop.why,
            val_accuracy=rows[-1].val_accuracy,
            val_correct=rows[-1].val_correct,
            n_val=rows[-1].n_val,
            curve=tuple(row.val_accuracy for row in rows),
            n_params=costs.n_params,
            size_bytes=costs.size_bytes,
            macs=costs.macs,
            macs_full=full.macs,
            cost=full_network_epochs(len(rows), data=data, config=config, macs=macs, macs_full=full.macs),
            threads=data.machine.threads,
        ),
    )


def _stop(curve: Sequence[float], config: Config) -> Stop | None:
    if config.mode.stop == "flat":
        return why_stop(curve, config.growth)
    if len(curve) < config.growth.max_epochs:
        return None
    return Stop("max_epochs", f"with search.mode {config.search.mode} every depth takes growth.max_epochs {config.growth.max_epochs}")


def cool_down(
    state: TrainState,
    *,
    data: SearchData,
    config: Config,
    name: Literal["trial", "finish", "reduce"],
    epochs: int,
    checkpoint: Path | None,
    teacher: Teacher | None = None,
) -> Iterator[Tick | EpochRow | Cooled]:
    """Branch off a state, which stays as it is, and take the rate to zero; end with the `Cooled` network and one evaluation on val.

    A training state that has taken no step begins with a warm-up. `teacher` is who taught the depth, whose forward passes are in the cost.
    """
    branch = copy.deepcopy(state)
    architecture = branch.network.architecture
    warmup_epochs = config.train.warmup_epochs if state.n_averaged == 0 else 0.0
    phase = Phase(name=name, depth=architecture.depth, epochs=epochs, seed=config.seed, warmup_epochs=warmup_epochs)
    rows: list[EpochRow] = []
    objective = objective_of(config, branch.network, teacher=teacher)
    for event in run_phase(branch, phase, data=data, config=config, checkpoint=checkpoint, objective=objective):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
    macs, macs_full = pass_macs(architecture, teacher=teacher, manifest=data.manifest), full_network_cost(architecture, data.manifest).macs
    spent = full_network_epochs(epochs, data=data, config=config, macs=macs, macs_full=macs_full)
    yield Cooled(
        network=branch.average.truncated(architecture.depth),
        trial=Trial(n_correct=rows[-1].val_correct, n=rows[-1].n_val, epochs=epochs, cost=spent),
        rows=tuple(rows),
    )


def grown(before: TrainState | None, *, data: SearchData, config: Config, depth: int) -> TrainState:
    """Return the network that a depth starts from, with its average and its momentum.

    Weights, average and momentum of what was there before are kept; where `growth.init` is `rewind` nothing is.
    """
    has_exit = before is not None and (config.train.aux_weight > 0 or config.search.distill == "exits")
    heads = (before.network.depth, depth) if before is not None and has_exit else (depth,)
    if before is None or config.growth.init == "rewind":
        return _fresh(data.backbone.at(depth), data=data, config=config, heads=heads)
    images = _example_images(data.train)

    def wider(old: DepthNetwork) -> DepthNetwork:
        fresh = generator(config.seed, "weights", depth)
        whole = data.backbone  # a training state that was read from a file knows no pretrained weights
        return expanded(old, depth, init=config.growth.init, generator=fresh, heads=heads, images=images, backbone=whole)

    network, average = data.machine.to_device(wider(before.network)), data.machine.to_device(wider(before.average)).requires_grad_(False)
    momentum = carried(before.momentum, old=before.network, new=network)
    for name, parameter in network.named_parameters():
        momentum.setdefault(name, torch.zeros_like(parameter))
    return TrainState(network=network, momentum=momentum, average=average)


def finish_state(trained: TrainState, *, data: SearchData, config: Config) -> TrainState:
    """Return what the finish of an accepted depth sets off from: its state, or with `finish.start: fresh` the depth before any training.

    A pruned network is what training made of it: there is no fresh one.
    """
    if config.finish.start == "grown" or not config.mode.finish_anew:
        return trained
    return _fresh(data.backbone.at(trained.network.depth), data=data, config=config)


def _fresh(architecture: Architecture, *, data: SearchData, config: Config, heads: Sequence[int] | None = None) -> TrainState:
    return TrainState.fresh(data.machine.to_device(build(architecture, generator(config.seed, "weights"), heads=heads)))


def _example_images(train: Images) -> Tensor:
    """Return a batch (n, C, H, W) like those of training, normalised: every (N / n)th image."""
    index = torch.arange(0, len(train), max(1, len(train) // EXAMPLE_IMAGES))[:EXAMPLE_IMAGES]
    return train.normalised(train.batch(index))
