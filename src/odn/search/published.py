"""The published procedure, as it was coded: a warm-up of all depths at once, then depth after depth, each anew from the warm-up.

Source: Tareen and Tareen, arXiv 2510.10764, and the authors' notebooks (github.com/saktx/Optimally_Deep_Networks). What differs here:
`growth.max_epochs` bounds a depth, which the published procedure does not. Its rates are made for torch's own initial weights: the
larger ones that are drawn elsewhere in odn turn more slowly under them, and cost 0.4 points on MNIST.
"""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import N_BLOCKS, Config
from odn.data.batches import n_steps, training_batches
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build
from odn.search.convergence import DepthStep, Stop
from odn.search.data import SearchData, costs_at, full_depth_cost, full_depth_epochs
from odn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from odn.training.device import Machine
from odn.training.loop import LOOK_STEPS, TICK_SECONDS, EpochRow, Tick, epoch_row, require_finite
from odn.training.optim import Scale
from odn.training.readout import read_out
from odn.training.replay import replayed
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
class Progress:
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
        self.hits = torch.zeros((), dtype=torch.int64, device=machine.device)  # images that the last of `depths` got right
        self._learn = replayed(self._learn_once, machine=machine)

    def step(self, images: Tensor, labels: Tensor, *, lr: float) -> Tensor:
        """Learn a batch; return the loss of the last of `depths`, which the next call overwrites."""
        self.scale.set(-lr)
        return self._learn(images, labels)

    def _learn_once(self, images: Tensor, labels: Tensor) -> Tensor:
        for depth in self.depths:
            with self.machine.autocast():
                logits = self.network(images, depth)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.train.label_smoothing)
            loss.backward()
        self._update()
        self.hits.add_((logits.detach().argmax(1) == labels).sum())
        return loss.detach()

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


def warm_up(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | Warm]:
    """Train all depths at once, from fresh weights; end with `Warm`.

    In each step the gradients of a separate pass at every depth, deepest first, add up; the rate falls along a cosine, epoch by epoch.

    Raises:
        TrainingError: a loss that is not finite.
    """
    network, done, epochs = untrained(data, config), 0, config.paper.warmup_epochs
    sgd = PlainSgd(network, depths=tuple(reversed(network.head_depths)), config=config, machine=data.machine)
    if checkpoint is not None and checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        sgd.load(saved.tensors)
        done = saved.record["epochs"]
    for epoch in range(done + 1, epochs + 1):
        lr = config.paper.warmup_lr * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
        yield from _epoch(sgd, data=data, config=config, lr=lr, phase="warm-up", epoch=epoch)
        if checkpoint is not None:
            save_checkpoint(checkpoint, Checkpoint(sgd.tensors(), {"epochs": epoch}))
    yield Warm(sgd.network)


def train_published(
    warm: DepthNetwork, *, data: SearchData, config: Config, depth: int, is_first: bool, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Published]:
    """Train one depth from the warm-up, which stays as it is; end with `Published`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    paper, deepest = config.paper, depth == warm.architecture.n_blocks
    network = data.machine.holding(warm.truncated(depth).train())
    sgd = PlainSgd(network, depths=(depth,), config=config, machine=data.machine)
    best = _copied(sgd.network)
    progress = Progress(target=paper.target, patience=paper.patience, max_epochs=config.growth.max_epochs, deepest=deepest)
    rows: list[EpochRow] = []
    stop: Stop | None = None
    if checkpoint is not None and checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        sgd.load(saved.tensors)
        best = {name: saved.tensors[f"best.{name}"].to(data.machine.device) for name in best}
        for entry in saved.record["rows"]:
            rows.append(EpochRow(**entry))
            _, stop = progress.saw(rows[-1].val_accuracy)
            yield rows[-1]
    while stop is None:
        lr = (paper.lr if is_first else paper.later_lr) * DECAY**progress.decays
        epoch = len(rows) + 1
        losses, accuracy = yield from _epoch(sgd, data=data, config=config, lr=lr, phase="published", epoch=epoch)
        seen = read_out(sgd.network, data.val, machine=data.machine)
        rows.append(epoch_row(depth=depth, phase="stable", epoch=epoch, lr=lr, loss=losses, accuracy=accuracy, seen=seen))
        is_best, stop = progress.saw(seen.accuracy)
        if is_best:
            best = _copied(sgd.network)
        if checkpoint is not None:
            kept = {f"best.{name}": tensor for name, tensor in best.items()}
            save_checkpoint(checkpoint, Checkpoint(sgd.tensors() | kept, {"rows": [asdict(row) for row in rows]}))
        yield rows[-1]
    sgd.network.load_state_dict(best)
    cost = warmup_cost(warm.architecture, data=data, config=config) if is_first else 0.0
    step = _step(rows, stop, best=rows[progress.best_epoch - 1], architecture=sgd.network.architecture, data=data, config=config)
    yield Published(sgd.network, replace(step, cost=step.cost + cost), tuple(rows))


def untrained(data: SearchData, config: Config) -> DepthNetwork:
    """Return the whole backbone, with a head at every depth, and fresh weights."""
    deepest = N_BLOCKS[config.model.backbone]
    architecture = Architecture.of(config, in_channels=data.manifest.channels, n_classes=data.manifest.n_classes, depth=deepest)
    return data.machine.holding(build(architecture, generator(config.seed, "weights"), heads=range(1, deepest + 1), as_torch=True))


def warmup_cost(architecture: Architecture, *, data: SearchData, config: Config) -> float:
    """Return the full-depth epochs of the warm-up, whose epoch is a pass at every depth, each for itself."""
    macs = sum(costs_at(architecture.at(depth), data.manifest).macs for depth in range(1, architecture.n_blocks + 1))
    macs_full = full_depth_cost(architecture, data.manifest).macs
    return full_depth_epochs(config.paper.warmup_epochs, data=data, config=config, macs=macs, macs_full=macs_full)


def _epoch(
    sgd: PlainSgd, *, data: SearchData, config: Config, lr: float, phase: str, epoch: int
) -> Generator[Tick, None, tuple[float, float]]:
    """Train an epoch with the summed losses of separate passes; return the mean loss and the accuracy of the last of the depths."""
    batch_size, depth = config.train.batch_size, sgd.depths[-1]
    steps = n_steps(data.train, batch_size=batch_size)
    losses = torch.zeros(steps, device=data.machine.device)
    draws = generator(config.seed, "batches", depth, phase, epoch)
    batches = training_batches(data.train, batch_size=batch_size, augment=config.augment, generator=draws)
    sgd.network.train()
    sgd.hits.zero_()
    ticked = time.monotonic()
    for step, (images, labels) in enumerate(batches):
        losses[step] = sgd.step(images, labels, lr=lr)
        if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
            remedy = f"lower paper.lr, paper.later_lr or paper.warmup_lr (it was {lr:g})"
            require_finite(losses[: step + 1], depth=depth, phase=phase, epoch=epoch, remedy=remedy)
        if time.monotonic() - ticked > TICK_SECONDS:
            yield Tick(epoch=epoch, step=step + 1, steps=steps)
            ticked = time.monotonic()
    return float(losses.double().mean()), int(sgd.hits) / min(steps * batch_size, len(data.train))


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
