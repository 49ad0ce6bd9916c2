"""Train the gates of a network to a budget, so that it says what the ungated network says.

A step draws each gate by a straight-through Gumbel sample, and adds to the loss how far the mean cost of the batch is from the budget.
Source: Conv-AIG, arXiv 1711.11503, section 3.2 (sampling, budget as a squared distance); distillation, arXiv 1503.02531, section 2.
N images, D blocks.
"""

import copy
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images, n_steps, plain_batches, training_batches
from odn.models.gated import GatedNetwork, gated
from odn.models.network import DepthNetwork
from odn.records import Positive, Record
from odn.search.data import FORWARD_SHARE, SearchData, costs_at, full_depth_cost, full_depth_epochs
from odn.training.adam import Adam
from odn.training.checkpoint import Checkpoint, resume, save_checkpoint
from odn.training.distillation import distillation_loss
from odn.training.loop import LOOK_STEPS, TICK_SECONDS, EpochRow, Tick, epoch_row, require_finite
from odn.training.readout import batch_size, read_out, reestimate_batchnorm
from odn.training.seed import generator

NARROWING = 0.5  # share of training over which the budget falls from the whole network to the target
SHIFTS = tuple(step / 4 for step in range(-24, 25))  # added to the gates' scores, of which val chooses one
EDGE = 1e4  # a shift that closes, or opens, every gate


@dataclass(frozen=True)
class GateCosts:
    """Hold what a gated network costs an image, in any unit: `fixed` always, `residuals` (D,) where a gate is open."""

    fixed: float
    residuals: tuple[float, ...]

    @property
    def full(self) -> float:
        """Return the cost with every gate open."""
        return self.fixed + sum(self.residuals)


@dataclass(frozen=True)
class GatedOutcome:
    """Say what a shift of the scores gives on a split."""

    shift: float
    cost: float
    n_correct: int
    n_images: int
    opening: tuple[float, ...]  # (D,) fraction of the images that each block's residual is computed for
    n_open: tuple[int, ...]  # (D + 1,) how many images compute 0, 1, … residuals

    @property
    def accuracy(self) -> float:
        """Return the fraction that is right."""
        return self.n_correct / self.n_images


@dataclass(frozen=True)
class Gated:
    """Hold what training leaves, and its cost in full-depth epochs: a pass of the network and a forward pass of its teacher a step."""

    network: GatedNetwork
    rows: tuple[EpochRow, ...]
    cost: float


def train_gates(
    teacher: DepthNetwork, *, costs: GateCosts, budget: float, data: SearchData, config: Config, checkpoint: Path | None
) -> Iterator[Tick | EpochRow | Gated]:
    """Train gates, and with `route.backbone_lr` above 0 the backbone with them, from the teacher's weights; end with `Gated`.

    `budget` is in the unit of `costs`. The teacher stays as it is. BatchNorm keeps the teacher's statistics where the backbone is frozen.

    Raises:
        TrainingError: a loss that is not finite.
    """
    route, machine = config.route, data.machine
    student = machine.holding(gated(teacher, hidden=route.hidden, generator=generator(config.seed, "gates")))
    teacher = machine.holding(copy.deepcopy(teacher)).eval()
    adam = Adam(dict(student.named_parameters()), groups=(("gates.", route.lr), ("network.", route.backbone_lr)))
    rows = _resumed(checkpoint, student, adam)
    yield from rows
    for epoch in range(len(rows) + 1, route.epochs + 1):
        loss, accuracy = yield from _epoch(student, teacher, adam, costs=costs, budget=budget, data=data, config=config, epoch=epoch)
        if route.backbone_lr > 0:
            reestimate_batchnorm(student, data.train, machine=machine)
        seen = read_out(student, data.val, machine=machine)
        rate = route.lr * _rate(epoch, config)
        rows.append(epoch_row(depth=teacher.depth, phase="gates", epoch=epoch, lr=rate, loss=loss, accuracy=accuracy, seen=seen))
        if checkpoint is not None:
            tensors = {f"network.{name}": tensor for name, tensor in student.state_dict().items()} | adam.moments
            save_checkpoint(checkpoint, Checkpoint(tensors, {"rows": [asdict(row) for row in rows], "steps": adam.n_steps}))
        yield rows[-1]
    macs, macs_full = costs_at(teacher.architecture, data.manifest).macs, full_depth_cost(teacher.architecture, data.manifest).macs
    cost = full_depth_epochs(route.epochs, data=data, config=config, macs=(1 + FORWARD_SHARE) * macs, macs_full=macs_full)
    yield Gated(student.eval(), tuple(rows), cost)


def _rate(epoch: int, config: Config) -> float:
    """Return the rate of an epoch, from 1, along a cosine, as a fraction of the first."""
    return (1 + math.cos(math.pi * (epoch - 1) / config.route.epochs)) / 2


def _epoch(
    student: GatedNetwork,
    teacher: DepthNetwork,
    adam: Adam,
    *,
    costs: GateCosts,
    budget: float,
    data: SearchData,
    config: Config,
    epoch: int,
) -> Generator[Tick, None, tuple[float, float]]:
    """Train an epoch; return the mean loss and the accuracy on its augmented batches."""
    route, train, machine = config.route, config.train, data.machine
    steps, draws = n_steps(data.train, batch_size=train.batch_size), generator(config.seed, "gates", epoch)
    losses, hits = torch.zeros(steps, device=machine.device), torch.zeros((), dtype=torch.int64, device=machine.device)
    prices = torch.tensor(costs.residuals, device=machine.device) / costs.full
    batches = training_batches(data.train, batch_size=train.batch_size, augment=config.augment, generator=draws)
    ticked = time.monotonic()
    _set_mode(student, trains_backbone=route.backbone_lr > 0)
    for step, (images, labels) in enumerate(batches):
        narrowed = min(1.0, ((epoch - 1) * steps + step + 1) / (NARROWING * route.epochs * steps))
        aim = (1 - narrowed) + narrowed * budget / costs.full
        noise = torch.logit(torch.rand(len(images), student.network.depth, generator=draws).clamp(1e-6, 1 - 1e-6)).to(machine.device)
        with machine.autocast():
            logits, keep = student.relaxed(images, noise, temperature=route.gumbel_temperature)
            with torch.no_grad():
                taught = teacher(images)
        spent = costs.fixed / costs.full + (keep.float() * prices).sum(dim=1).mean()
        loss = _said(logits, taught, labels, config=config) + route.budget_weight * (spent - aim) ** 2
        loss.backward()
        adam.step(rate=_rate(epoch, config))
        losses[step] = loss.detach()
        hits += (logits.detach().argmax(1) == labels).sum()
        if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
            remedy = f"lower route.lr (it was {route.lr:g}) or route.backbone_lr"
            require_finite(losses[: step + 1], depth=teacher.depth, phase="gates", epoch=epoch, remedy=remedy)
        if time.monotonic() - ticked > TICK_SECONDS:
            yield Tick(epoch=epoch, step=step + 1, steps=steps)
            ticked = time.monotonic()
    return float(losses.double().mean()), int(hits) / min(steps * train.batch_size, len(data.train))


def _said(logits: Tensor, taught: Tensor, labels: Tensor, *, config: Config) -> Tensor:
    """Weigh what the labels ask for against what the teacher says."""
    weight = config.route.distill_weight
    asked = F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing)
    return (1 - weight) * asked + weight * distillation_loss(logits, taught, temperature=config.route.distill_temperature)


def _set_mode(student: GatedNetwork, *, trains_backbone: bool) -> None:
    """Let a frozen backbone keep its statistics, and spare its gradients."""
    student.train()
    student.network.train(trains_backbone)
    student.network.requires_grad_(trains_backbone)


@dataclass(frozen=True)
class GatesProgress(Record):
    """Hold how far an interrupted training of gates was."""

    rows: tuple[EpochRow, ...]
    steps: Positive


def _resumed(checkpoint: Path | None, student: GatedNetwork, adam: Adam) -> list[EpochRow]:
    """Take over what an interrupted run kept; return its rows."""
    like = {f"network.{name}": tensor for name, tensor in student.state_dict().items()} | adam.moments
    saved = resume(checkpoint, GatesProgress, like=like)
    if saved is None:
        return []
    student.load_state_dict({name: saved.tensors[f"network.{name}"] for name in student.state_dict()})
    adam.load(saved.tensors, n_steps=saved.record.steps)
    return list(saved.record.rows)


@torch.no_grad()
def shifted_outcomes(network: GatedNetwork, split: Images, *, costs: GateCosts, shifts: Sequence[float]) -> list[GatedOutcome]:
    """Return what each shift of the scores gives on a split."""
    return [_shifted(network, split, costs=costs, shift=shift) for shift in shifts]


def _shifted(network: GatedNetwork, split: Images, *, costs: GateCosts, shift: float) -> GatedOutcome:
    before, network.shift = network.shift, shift
    right, opened = 0, []
    for images, labels in plain_batches(split, batch_size=batch_size(split)):
        routed = network.eval().route(images)
        right += int((routed.logits.argmax(1) == labels).sum())
        opened.append(routed.is_open.cpu())
    network.shift = before
    is_open = torch.cat(opened)
    counts = is_open.sum(dim=0).tolist()
    cost = costs.fixed + sum(count * price for count, price in zip(counts, costs.residuals, strict=True)) / len(split)
    n_open = torch.bincount(is_open.sum(dim=1), minlength=is_open.shape[1] + 1).tolist()
    return GatedOutcome(shift, cost, right, len(split), tuple(count / len(split) for count in counts), tuple(n_open))
