"""Progressive depth expansion: train a depth, judge it, grow by the next block, until the target is reached.

`expand` is the whole search in memory; the stages `train`, `check` and `truncate` call its three parts, one process each, and
give the same bytes. What is inherited from depth to depth is the `TrainState`: weights, momentum, averaged weights.
Source: Tareen and Tareen, arXiv 2510.10764; function-preserving growth: Chen et al. (Net2Net), arXiv 1511.05641.
"""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.models.architecture import Architecture
from odn.models.expansion import carried, expanded
from odn.models.network import DepthNetwork, build
from odn.search.advice import Advice
from odn.search.advising import look_ahead
from odn.search.convergence import DepthStep, Probe, Stop, Verdict, judge, wants_probe, why_stop
from odn.search.data import SearchData, costs_at, full_depth_cost, full_depth_epochs
from odn.search.phases import run_phase
from odn.search.pruning import Pruned, train_pruned
from odn.search.published import Published, Warm, train_published, warm_up
from odn.search.supernet import Supernet, exit_step, train_supernet
from odn.search.teaching import TrainedTeacher, objective_of, pass_macs, teacher_of, train_teacher
from odn.training.depth_task import Phase
from odn.training.fit import EpochRow, Tick
from odn.training.objective import Teacher
from odn.training.seed import generator
from odn.training.state import TrainState

T = TypeVar("T")

EXAMPLE_IMAGES = 256  # training images that a shortcut at a group change takes its statistics from


@dataclass(frozen=True)
class Trained:
    """Hold what the stable phase of a depth leaves; `state.average` is the network that was read out."""

    state: TrainState
    step: DepthStep
    rows: tuple[EpochRow, ...]


@dataclass(frozen=True)
class Cooled:
    """Hold what a cooldown leaves: a network ready for use, and what it got right on val."""

    network: DepthNetwork
    probe: Probe
    rows: tuple[EpochRow, ...]


@dataclass(frozen=True)
class SearchStep:
    """Hold one depth of a search: what training gave, the verdict, and the network that was judged."""

    step: DepthStep
    verdict: Verdict
    network: DepthNetwork
    state: TrainState | None  # what a finish branches off from; None where training left what is kept: there is no finish


def expand(data: SearchData, config: Config, *, teacher: DepthNetwork | Teacher | None = None) -> Iterator[SearchStep]:
    """Search, yielding each depth as it is judged; `outcome.choose` says with which depth it ends.

    `teacher` is the network that `search.distill: models:/…` names; one of full depth, where none is given, is trained here.

    Raises:
        TrainingError: a loss that is not finite.
        ValueError: `search.distill` names a teacher, and none is given.
    """
    if config.search.mode == "auto":
        config = config.in_mode(_last(look_ahead(data=data, config=config, checkpoint=None), Advice).mode)
    if config.search.mode == "paper":
        yield from _published(data, config)
        return
    if config.search.mode == "supernet":
        yield from _in_supernet(data, config)
        return
    if config.search.mode == "prune":
        yield from _pruned(data, config)
        return
    before: TrainState | None = None
    if config.search.distill == "full" and teacher is None:
        teacher = _last(train_teacher(data=data, config=config, checkpoint=None), TrainedTeacher).network
    for depth in config.search.schedule:
        taught_by = teacher_of(config, before=before.average if before else None, outside=teacher, machine=data.machine)
        trained = _last(train_depth(before, data=data, config=config, depth=depth, checkpoint=None, teacher=taught_by), Trained)
        cooled, network = None, trained.state.average.truncated(depth)
        if wants_probe(trained.step, config.search):
            epochs = config.search.cooldown_epochs
            probe = cool_down(trained.state, data=data, config=config, name="probe", epochs=epochs, checkpoint=None, teacher=taught_by)
            cooled = _last(probe, Cooled)
            network = cooled.network
        verdict = judge(trained.step, config.search, probe=cooled.probe if cooled else None)
        yield SearchStep(step=trained.step, verdict=verdict, network=network, state=trained.state)
        if verdict.verdict != "expand":
            return
        before = trained.state if config.search.mode == "growth" else None


def _published(data: SearchData, config: Config) -> Iterator[SearchStep]:
    warm = _last(warm_up(data=data, config=config, checkpoint=None), Warm).network
    for depth in config.search.schedule:
        is_first = depth == config.search.schedule[0]
        done = _last(train_published(warm, data=data, config=config, depth=depth, is_first=is_first, checkpoint=None), Published)
        verdict = judge(done.step, config.search, probe=None)
        yield SearchStep(step=done.step, verdict=verdict, network=done.network, state=None)
        if verdict.verdict != "expand":
            return


def _in_supernet(data: SearchData, config: Config) -> Iterator[SearchStep]:
    trained = _last(train_supernet(data=data, config=config, checkpoint=None), Supernet)
    for depth in config.search.schedule:
        booked = trained if depth == config.search.schedule[0] else None
        step = exit_step(trained.network, data=data, config=config, depth=depth, trained=booked)
        verdict = judge(step, config.search, probe=None)
        yield SearchStep(step=step, verdict=verdict, network=trained.network.truncated(depth), state=None)
        if verdict.verdict != "expand":
            return


def _pruned(data: SearchData, config: Config) -> Iterator[SearchStep]:
    (depth,) = config.search.schedule
    done = _last(train_pruned(data=data, config=config, depth=depth, checkpoint=None), Pruned)
    yield SearchStep(step=done.step, verdict=judge(done.step, config.search, probe=None), network=done.network, state=done.state)


def train_depth(
    before: TrainState | None, *, data: SearchData, config: Config, depth: int, checkpoint: Path | None, teacher: Teacher | None = None
) -> Iterator[Tick | EpochRow | Trained]:
    """Run the stable phase of a depth, grown from `before` or, where that is None, built from the seed; end with `Trained`.

    `teacher` is who teaches it (see `teaching.teacher_of`), whose forward passes are in its cost.
    With `search.mode` grid or scratch it takes `growth.max_epochs`, whatever the curve.
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
    costs, full = costs_at(architecture, data.manifest), full_depth_cost(architecture, data.manifest)
    macs = pass_macs(architecture, teacher=teacher, manifest=data.manifest)
    yield Trained(
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
            cost=full_depth_epochs(len(rows), data=data, config=config, macs=macs, macs_full=full.macs),
            threads=data.machine.threads,
        ),
    )


def _stop(curve: Sequence[float], config: Config) -> Stop | None:
    if config.search.mode == "growth":
        return why_stop(curve, config.growth)
    if len(curve) < config.growth.max_epochs:
        return None
    return Stop("max_epochs", f"with search.mode {config.search.mode} every depth takes growth.max_epochs {config.growth.max_epochs}")


def cool_down(
    state: TrainState,
    *,
    data: SearchData,
    config: Config,
    name: Literal["probe", "finish", "shave"],
    epochs: int,
    checkpoint: Path | None,
    teacher: Teacher | None = None,
) -> Iterator[Tick | EpochRow | Cooled]:
    """Branch off a state, which stays as it is, and take the rate to zero; end with the `Cooled` network and one look at val.

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
    macs, macs_full = pass_macs(architecture, teacher=teacher, manifest=data.manifest), full_depth_cost(architecture, data.manifest).macs
    spent = full_depth_epochs(epochs, data=data, config=config, macs=macs, macs_full=macs_full)
    yield Cooled(
        network=branch.average.truncated(architecture.depth),
        probe=Probe(n_correct=rows[-1].val_correct, n=rows[-1].n_val, epochs=epochs, cost=spent),
        rows=tuple(rows),
    )


def grown(before: TrainState | None, *, data: SearchData, config: Config, depth: int) -> TrainState:
    """Return the network that a depth starts from, with its average and its momentum.

    Weights, average and momentum of what was there before are kept; where `growth.init` is `reload` nothing is.
    """
    has_exit = before is not None and (config.train.aux_weight > 0 or config.search.distill == "exits")
    heads = (before.network.depth, depth) if before is not None and has_exit else (depth,)
    if before is None or config.growth.init == "reload":
        return _fresh(data.backbone.at(depth), data=data, config=config, heads=heads)
    images = _example_images(data.train)

    def wider(old: DepthNetwork) -> DepthNetwork:
        fresh = generator(config.seed, "weights", depth)
        return expanded(old, depth, init=config.growth.init, generator=fresh, heads=heads, images=images)

    network, average = data.machine.holding(wider(before.network)), data.machine.holding(wider(before.average)).requires_grad_(False)
    momentum = carried(before.momentum, old=before.network, new=network)
    for name, parameter in network.named_parameters():
        momentum.setdefault(name, torch.zeros_like(parameter))
    return TrainState(network=network, momentum=momentum, average=average)


def finish_state(trained: TrainState, *, data: SearchData, config: Config) -> TrainState:
    """Return what the finish of an accepted depth sets off from: its state, or with `finish.start: fresh` the depth before any training.

    A pruned network is what training made of it: there is no fresh one.
    """
    if config.finish.start == "grown" or config.search.mode == "prune":
        return trained
    return _fresh(trained.network.architecture, data=data, config=config)


def _fresh(architecture: Architecture, *, data: SearchData, config: Config, heads: Sequence[int] | None = None) -> TrainState:
    return TrainState.fresh(data.machine.holding(build(architecture, generator(config.seed, "weights"), heads=heads)))


def _example_images(train: Images) -> Tensor:
    """Return a batch (n, C, H, W) like those of training, normalised: every (N / n)th image."""
    index = torch.arange(0, len(train), max(1, len(train) // EXAMPLE_IMAGES))[:EXAMPLE_IMAGES]
    return train.normalised(train.batch(index))


def _last(events: Iterator[object], kind: type[T]) -> T:
    """Run a generator to its end and return its last item."""
    last = deque(events, maxlen=1).pop()
    assert isinstance(last, kind)
    return last
