"""The published procedure, as it was coded: a warm-up of all depths at once, then depth after depth, each anew from the warm-up.

Source: Tareen and Tareen, arXiv 2510.10764, and the authors' notebooks (github.com/saktx/Optimally_Deep_Networks). What differs here:
`growth.max_epochs` bounds a depth, which the published procedure does not. Its rates are made for torch's own initial weights: the
larger ones that are drawn elsewhere in odn turn more slowly under them, and cost 0.4 points on MNIST.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.models.stored_networks import load_weights, save_weights
from odn.search.convergence import DepthStep, Stop
from odn.search.data import SearchData, costs_at, full_depth_cost, full_depth_epochs
from odn.search.phases import run
from odn.search.strategy import DEPENDS_ON, Began, Checkpoints, Event, Inherited, Trained
from odn.search.teachers import Teaching
from odn.training.device import Machine
from odn.training.fit import EpochRow, PhaseName, Position, Progress, Tick
from odn.training.optim import Scale
from odn.training.readout import ReadOut, read_out
from odn.training.seed import generator

DECAY, DECAY_EVERY = 0.6, 5  # the rate is multiplied by 0.6 at every fifth epoch in a row without progress
SEARCHING, TUNING = 3, 4  # decimals of the accuracy that counts as progress: 0.1 %, then 0.01 %


@dataclass(frozen=True)
class Warm:
    """Hold what the warm-up leaves: the whole backbone, with a head at every depth."""

    network: DepthNetwork


@dataclass(frozen=True)
class Published:
    """Hold what a depth leaves: its best network on val."""

    network: DepthNetwork
    step: DepthStep
    rows: tuple[EpochRow, ...]


@dataclass
class Patience:
    """Follow a depth's accuracies on val: what is best, when the rate falls, when searching becomes tuning, and when it all ends."""

    target: float
    patience: int
    max_epochs: int
    deepest: bool
    best: float = 0.0
    best_epoch: int = 1
    idle: int = 0  # epochs without progress
    tunes: bool = False
    n_epochs: int = 0
    decays: int = 0

    def saw(self, accuracy: float) -> tuple[bool, Stop | None]:
        """Take an epoch's accuracy; return whether its weights are the best so far, and why training ends, if it does."""
        self.n_epochs += 1
        rounded = round(accuracy, TUNING if self.tunes else SEARCHING)
        is_best = rounded > self.best
        if is_best:
            self.best, self.best_epoch, self.idle = rounded, self.n_epochs, 0
        else:
            self.idle += 1
            self.decays += self.idle % DECAY_EVERY == 0
        return is_best, self._stop()

    def _stop(self) -> Stop | None:
        waited = f"{self.patience} epochs brought no progress beyond {self.best:.2%}"
        if self.n_epochs >= self.max_epochs:
            return Stop("max_epochs", f"growth.max_epochs {self.max_epochs} is reached")
        if self.tunes:
            return Stop("flat", f"{waited}, fine-tuned") if self.idle >= self.patience else None
        if self.idle >= self.patience and self.best <= self.target and not self.deepest:
            return Stop("flat", waited)
        if self.idle >= self.patience or self.best >= self.target or self.deepest:
            self.tunes, self.idle = True, 0
        return None


class PlainSgd:
    """Step with momentum and weight decay on every parameter, as torch.optim.SGD does, for the summed losses at some depths."""

    def __init__(self, network: DepthNetwork, *, depths: tuple[int, ...], config: Config, machine: Machine) -> None:
        self.network, self.depths, self.train, self.machine = network, depths, config.train, machine
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
        self.scale = Scale(machine)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step of the announced rate; return logits and loss of the last of `depths`."""
        for depth in self.depths:
            with self.machine.autocast():
                logits = self.network(images, depth)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.train.label_smoothing)
            loss.backward()
        self._update()
        return logits, loss

    @torch.no_grad()
    def _update(self) -> None:
        parameters: list[Tensor] = list(self.network.parameters())
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        momenta = list(self.momentum.values())
        torch._foreach_add_(gradients, parameters, alpha=self.train.weight_decay)
        torch._foreach_mul_(momenta, self.train.momentum)
        torch._foreach_add_(momenta, gradients)
        self.scale.add_(parameters, momenta)
        for parameter in parameters:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, buffers and momentum by name."""
        network = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return network | {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors()` gave."""
        self.network.load_state_dict({name: tensors[f"network.{name}"] for name in self.network.state_dict()})
        for name, momentum in self.momentum.items():
            momentum.copy_(tensors[f"momentum.{name}"])


class WarmUpTask:
    """Train all depths at once: in each step the gradients of a separate pass at every depth, deepest first, add up.

    The rate falls along a cosine, epoch by epoch. Nothing is read off val.
    """

    phase: PhaseName = "warm-up"
    later: str | None = None
    replayable = True

    def __init__(self, network: DepthNetwork, *, config: Config, machine: Machine) -> None:
        self.sgd = PlainSgd(network, depths=tuple(reversed(network.head_depths)), config=config, machine=machine)
        self.depth, self.epochs, self.lr, self._config = self.sgd.depths[-1], config.paper.warmup_epochs, 0.0, config

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""
        return f"lower paper.warmup_lr (the rate was {self.lr:g})"

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._config.seed, "batches", self.depth, self.phase, epoch)

    def begin(self, position: Position) -> None:
        """Set the rate of the epoch."""
        self.lr = self._config.paper.warmup_lr * (1 + math.cos(math.pi * (position.epoch - 1) / self.epochs)) / 2
        self.sgd.network.train()

    def announce(self, position: Position) -> None:
        """Take the rate of the epoch for the next step."""
        self.sgd.scale.set(-self.lr)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step."""
        return self.sgd.learn(images, labels)

    def evaluate(self, *, train: Images, val: Images) -> None:
        """Look at nothing."""

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and momentum."""
        return self.sgd.tensors()

    def counts(self) -> dict[str, int | None]:
        """Return nothing: the rate follows from the epoch."""
        return {}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted warm-up."""
        self.sgd.load(tensors)


class PublishedTask:
    """Train one depth; after each epoch keep the weights that are the best so far, and say when it is enough."""

    phase: PhaseName = "stable"
    later: str | None = None
    replayable = True

    def __init__(self, network: DepthNetwork, *, config: Config, machine: Machine, first_lr: float, deepest: bool) -> None:
        self.sgd = PlainSgd(network, depths=(network.depth,), config=config, machine=machine)
        self.depth, self.epochs, self.lr = network.depth, config.growth.max_epochs, first_lr
        self.best = _copied(network)
        self.stop: Stop | None = None
        self.patience = Patience(
            target=config.paper.target, patience=config.paper.patience, max_epochs=config.growth.max_epochs, deepest=deepest
        )
        self._config, self._machine, self._first_lr = config, machine, first_lr

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""
        return f"lower paper.lr or paper.later_lr (the rate was {self.lr:g})"

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._config.seed, "batches", self.depth, "published", epoch)

    def begin(self, position: Position) -> None:
        """Set the rate of the epoch."""
        self.lr = self._first_lr * DECAY**self.patience.decays
        self.sgd.network.train()

    def announce(self, position: Position) -> None:
        """Take the rate of the epoch for the next step."""
        self.sgd.scale.set(-self.lr)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step."""
        return self.sgd.learn(images, labels)

    def evaluate(self, *, train: Images, val: Images) -> ReadOut:
        """Read the weights off val as they are, and keep them where they are the best."""
        seen = read_out(self.sgd.network, val, machine=self._machine)
        is_best, self.stop = self.patience.saw(seen.accuracy)
        if is_best:
            self.best = _copied(self.sgd.network)
        return seen

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, momentum and the best weights."""
        return self.sgd.tensors() | {f"best.{name}": tensor for name, tensor in self.best.items()}

    def counts(self) -> dict[str, int | None]:
        """Return nothing: progress follows from the rows."""
        return {}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted depth."""
        self.sgd.load(tensors)
        self.best = {name: tensors[f"best.{name}"].to(self._machine.device) for name in self.best}
        for row in progress.rows:
            _, self.stop = self.patience.saw(row.val_accuracy)


class AsPublished:
    """Train a depth from the warm-up of the whole backbone, which is handed on from depth to depth as it is."""

    def train(
        self,
        inherited: Inherited | None,
        *,
        data: SearchData,
        config: Config,
        depth: int,
        checkpoints: Checkpoints,
        outside: Callable[[], Teaching] | None,
    ) -> Iterator[Event | Trained]:
        """Train a depth; before the first, warm all of them up."""
        shared, sections = inherited.shared if inherited is not None else None, (*DEPENDS_ON, "paper")
        if shared is None:
            yield Began(depth, "warm-up", config.paper.warmup_epochs)
            for event in warm_up(data=data, config=config, checkpoint=checkpoints.of("warm-up", *sections)):
                if isinstance(event, Warm):
                    shared = event.network
                else:
                    yield event
        assert shared is not None, "a warm-up ends with its network"
        checkpoint, is_first = checkpoints.of(f"train-{depth}", *sections), inherited is None
        yield Began(depth, "stable", config.growth.max_epochs)
        for done in train_published(shared, data=data, config=config, depth=depth, is_first=is_first, checkpoint=checkpoint):
            yield Trained(done.network, Inherited(shared=shared), done.step, done.rows) if isinstance(done, Published) else done

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write the warm-up."""
        assert trained.inherited.shared is not None, "every depth hands it on"
        save_weights(trained.inherited.shared, folder / "state.safetensors")

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read the warm-up."""
        shared = untrained(data, config)
        load_weights(shared, folder / "state.safetensors")
        return Inherited(shared=shared)


STRATEGY = AsPublished()


def warm_up(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | Warm]:
    """Train all depths at once, from fresh weights; end with `Warm`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    task = WarmUpTask(untrained(data, config), config=config, machine=data.machine)
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        if isinstance(event, Tick):
            yield event
    yield Warm(task.sgd.network)


def train_published(
    warm: DepthNetwork, *, data: SearchData, config: Config, depth: int, is_first: bool, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Published]:
    """Train one depth from the warm-up, which stays as it is; end with `Published`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    network = data.machine.holding(warm.truncated(depth).train())
    first_lr, deepest = config.paper.lr if is_first else config.paper.later_lr, depth == warm.architecture.n_blocks
    task = PublishedTask(network, config=config, machine=data.machine, first_lr=first_lr, deepest=deepest)
    rows: list[EpochRow] = []
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        if isinstance(event, EpochRow):
            rows.append(event)
            if task.stop is not None and len(rows) == task.patience.n_epochs:
                break
    assert task.stop is not None, "max_epochs ends every depth"
    network.load_state_dict(task.best)
    cost = warmup_cost(warm.architecture, data=data, config=config) if is_first else 0.0
    best = rows[task.patience.best_epoch - 1]
    step = _step(rows, task.stop, best=best, architecture=network.architecture, data=data, config=config)
    yield Published(network, replace(step, cost=step.cost + cost), tuple(rows))


def untrained(data: SearchData, config: Config) -> DepthNetwork:
    """Return the whole backbone, with a head at every depth, and fresh weights."""
    heads = range(1, data.backbone.depth + 1)
    return data.machine.holding(build(data.backbone, generator(config.seed, "weights"), heads=heads, as_torch=True))


def warmup_cost(architecture: Architecture, *, data: SearchData, config: Config) -> float:
    """Return the full-depth epochs of the warm-up, whose epoch is a pass at every depth, each for itself."""
    macs = sum(costs_at(architecture.at(depth), data.manifest).macs for depth in range(1, architecture.n_blocks + 1))
    macs_full = full_depth_cost(architecture, data.manifest).macs
    return full_depth_epochs(config.paper.warmup_epochs, data=data, config=config, macs=macs, macs_full=macs_full)


def _step(rows: list[EpochRow], stop: Stop, *, best: EpochRow, architecture: Architecture, data: SearchData, config: Config) -> DepthStep:
    costs, macs_full = costs_at(architecture, data.manifest), full_depth_cost(architecture, data.manifest).macs
    return DepthStep(
        depth=architecture.depth,
        after=0,
        epochs=len(rows),
        stopped=stop.kind,
        why=stop.why,
        val_accuracy=best.val_accuracy,
        val_correct=best.val_correct,
        n_val=best.n_val,
        curve=tuple(row.val_accuracy for row in rows),
        n_params=costs.n_params,
        size_bytes=costs.size_bytes,
        macs=costs.macs,
        macs_full=macs_full,
        cost=full_depth_epochs(len(rows), data=data, config=config, macs=costs.macs, macs_full=macs_full),
        threads=data.machine.threads,
    )


def _copied(network: DepthNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
