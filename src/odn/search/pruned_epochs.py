"""The epochs of a training that prunes: first the network as it is, then beside it the gated one, in the end the cut one.

In each step with gates the ungated network learns from the labels, and the gated one, on the same weights, from the labels and from
what the ungated one says. Cut, it goes on learning from the labels and from the ungated network, which stays as it is.
Source: a network and its parts in one step, the whole teaching the parts: Yu and Huang, arXiv 1903.05134, section 3.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import n_steps, training_batches
from odn.models.budget import Prices, expected
from odn.models.gates import Gates, gated_forward, with_gates
from odn.models.network import DepthNetwork
from odn.search.data import SearchData
from odn.training.distillation import distillation_loss
from odn.training.hard_concrete import Scores, p_open, sampled, settled
from odn.training.loop import LOOK_STEPS, TICK_SECONDS, EpochRow, Tick, epoch_row, require_finite
from odn.training.optim import Optimiser, Updates
from odn.training.readout import ReadOut, read_out, reestimate_batchnorm
from odn.training.seed import generator

RAMP = 0.75  # of the epochs with gates, in which the cost that is asked for falls from all to the budget
PRICE_RATE = 0.5  # of the price, an epoch, where the cost is twice what is asked for
TrainStep = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # step, images, labels -> loss, logits


@dataclass(frozen=True)
class Task:
    """Hold what does not change while a network is pruned."""

    data: SearchData
    config: Config
    depth: int
    gates: Gates
    prices: Prices
    whole_cost: float  # of the whole backbone, in the unit of the budget
    start_cost: float  # of the network that pruning begins with

    @property
    def budget(self) -> float:
        """Return what the cut network may cost."""
        return self.config.prune.budget * self.whole_cost


def gate_epoch(task: Task, optimiser: Optimiser, scores: Scores, *, epoch: int) -> Generator[Tick, None, EpochRow]:
    """Train an epoch of the ungated network and, once the first epochs are over, of the gated one in the same steps."""
    config, machine, network = task.config, task.data.machine, optimiser.network
    dense, gated, _ = config.prune.phases
    steps = n_steps(task.data.train, batch_size=config.train.batch_size)
    updates = Updates(optimiser, train=config.train, machine=machine, steps_per_epoch=steps)
    draws = torch.rand(steps, task.gates.n, generator=generator(config.seed, "gates", task.depth, epoch)).to(machine.device)
    warmup, is_gated = round(config.train.warmup_epochs * steps), epoch > dense

    def train(step: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with machine.autocast():
            logits = network(images)
        loss = said = F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing)
        excess = torch.zeros(())
        if is_gated:
            with machine.autocast():
                through = gated_forward(network, task.gates, sampled(scores.values, draws[step]), images)
            passed = ((epoch - dense - 1) * steps + step + 1) / (RAMP * gated * steps)
            excess = _excess(task, scores, passed=min(1.0, passed))
            loss = said + _taught(config, through, labels, teacher=logits) + scores.penalty(excess)
        loss.backward()
        if is_gated:
            scores.step(lr=config.prune.gate_lr, excess=excess, price_rate=PRICE_RATE / steps)
        done = (epoch - 1) * steps + step + 1
        updates.step(rate=min(1.0, done / (warmup + 1)))
        return loss.detach(), logits.detach()

    losses, accuracy = yield from _epoch(task, network, train, epoch=epoch)
    seen = _read_out(task, with_gates(optimiser.average, task.gates, settled(scores.values)) if is_gated else optimiser.average)
    rate = min(1.0, epoch * steps / (warmup + 1))
    return _row(task, epoch=epoch, rate=rate, loss=losses, accuracy=accuracy, seen=seen)


def _excess(task: Task, scores: Scores, *, passed: float) -> Tensor:
    """Return by which fraction the expected cost is above what is asked for when this part of the way to the budget is passed.

    What is asked for falls by the same fraction with every step.
    """
    asked = task.start_cost * (task.budget / task.start_cost) ** passed
    return expected(task.gates, task.prices, p_open(scores.values)) / asked - 1


def _taught(config: Config, logits: Tensor, labels: Tensor, *, teacher: Tensor) -> Tensor:
    """Return the loss against the labels and against the teacher's logits, both (N, K)."""
    weight = config.prune.distill_weight
    own = F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing)
    return (1 - weight) * own + weight * distillation_loss(logits, teacher, temperature=config.prune.temperature)


def settle_epoch(task: Task, left: Optimiser, *, teacher: DepthNetwork, epoch: int) -> Generator[Tick, None, EpochRow]:
    """Train the cut network for an epoch, the rate on its way to 0."""
    config, machine = task.config, task.data.machine
    dense, gated, settle = config.prune.phases
    steps = n_steps(task.data.train, batch_size=config.train.batch_size)
    updates = Updates(left, train=config.train, machine=machine, steps_per_epoch=steps)
    before = (epoch - dense - gated - 1) * steps

    def train(step: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), machine.autocast():
            said = teacher(images) if config.prune.distill_weight > 0 else None
        with machine.autocast():
            logits = left.network(images)
        loss = _taught(config, logits, labels, teacher=said if said is not None else logits)
        loss.backward()
        updates.step(rate=1 - (before + step) / (settle * steps))
        return loss.detach(), logits.detach()

    losses, accuracy = yield from _epoch(task, left.network, train, epoch=epoch)
    rate = 1 - (before + steps - 1) / (settle * steps)
    return _row(task, epoch=epoch, rate=rate, loss=losses, accuracy=accuracy, seen=_read_out(task, left.average))


def _epoch(task: Task, network: DepthNetwork, train: TrainStep, *, epoch: int) -> Generator[Tick, None, tuple[float, float]]:
    """Call `train` for each batch of an epoch; return the mean loss and the accuracy on the batches."""
    data, settings = task.data, task.config.train
    steps = n_steps(data.train, batch_size=settings.batch_size)
    losses, hits = torch.zeros(steps, device=data.machine.device), torch.zeros((), dtype=torch.int64, device=data.machine.device)
    draws = generator(task.config.seed, "batches", task.depth, "stable", epoch)
    batches = training_batches(data.train, batch_size=settings.batch_size, augment=task.config.augment, generator=draws)
    network.train()
    ticked = time.monotonic()
    for step, (images, labels) in enumerate(batches):
        losses[step], logits = train(step, images, labels)
        hits += (logits.argmax(1) == labels).sum()
        if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
            require_finite(losses[: step + 1], depth=task.depth, phase="stable", epoch=epoch, remedy="lower train.lr or prune.gate_lr")
        if time.monotonic() - ticked > TICK_SECONDS:
            yield Tick(epoch=epoch, step=step + 1, steps=steps)
            ticked = time.monotonic()
    return float(losses.double().mean()), int(hits) / min(steps * settings.batch_size, len(data.train))


def _read_out(task: Task, network: DepthNetwork) -> ReadOut:
    reestimate_batchnorm(network, task.data.train, machine=task.data.machine)
    return read_out(network, task.data.val, machine=task.data.machine)


def _row(task: Task, *, epoch: int, rate: float, loss: float, accuracy: float, seen: ReadOut) -> EpochRow:
    lr = task.config.train.lr * rate
    return epoch_row(depth=task.depth, phase="stable", epoch=epoch, lr=lr, loss=loss, accuracy=accuracy, seen=seen)
