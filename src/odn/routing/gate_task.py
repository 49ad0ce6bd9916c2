"""Train the gates of a network to a budget, so that its logits stay those of the ungated network.

A step draws each gate by a straight-through Gumbel sample, and adds to the loss how far the mean cost of the batch is from the budget.
Source: Conv-AIG, arXiv 1711.11503, section 3.2 (sampling, budget as a squared distance); distillation, arXiv 1503.02531, section 2.
N images, D blocks.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images, plain_batches, share_of
from odn.models.network import DepthNetwork
from odn.routing.gated import GatedNetwork, gated
from odn.searching.data import FORWARD_SHARE, SearchData, costs_at, full_network_cost, full_network_epochs
from odn.searching.phases import run
from odn.sections import AugmentConfig
from odn.training.adam import Adam
from odn.training.device import Machine
from odn.training.distillation import distillation_loss
from odn.training.evaluation import Evaluation, batch_size, evaluate, reestimate_batchnorm
from odn.training.fit import EpochRow, PhaseName, Position, Progress, Tick
from odn.training.group import Shared
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
    """Hold what training leaves, and its cost in full-network epochs: a pass of the network and a forward pass of its teacher a step."""

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
    task = GatesTask(teacher, costs=costs, budget=budget, n_images=len(data.train), config=config, machine=data.machine)
    rows: list[EpochRow] = []
    for event in run(task, data=data, config=config, checkpoint=checkpoint):
        yield event
        rows += [event] if isinstance(event, EpochRow) else []
    macs, macs_full = costs_at(teacher.architecture, data.manifest).macs, full_network_cost(teacher.architecture, data.manifest).macs
    cost = full_network_epochs(config.route.epochs, data=data, config=config, macs=(1 + FORWARD_SHARE) * macs, macs_full=macs_full)
    yield Gated(task.student.eval(), tuple(rows), cost)


class GatesTask:
    """Train gates and, where its rate is above 0, the backbone beneath them; the rate falls along a cosine, epoch by epoch."""

    phase: PhaseName = "gates"
    later: str | None = None
    replayable = False  # noise and aim differ from step to step

    def __init__(self, teacher: DepthNetwork, *, costs: GateCosts, budget: float, n_images: int, config: Config, machine: Machine) -> None:
        route = config.route
        self.depth, self.epochs = teacher.depth, route.epochs
        self.draws_inside = teacher.draws_inside
        self.student = machine.to_device(gated(teacher, hidden=route.hidden, generator=generator(config.seed, "gates")))
        self._shared = Shared.of(self.student)
        self._teacher = machine.to_device(copy.deepcopy(teacher)).eval()
        self._adam = Adam(dict(self.student.named_parameters()), groups=(("gates.", route.lr), ("network.", route.backbone_lr)))
        self._costs, self._aim_at, self._n_images, self._config, self._machine = costs, budget / costs.full, n_images, config, machine
        self._residual_shares = torch.tensor(costs.residuals, device=machine.device) / costs.full
        self._rate, self._aim, self._noise, self._now = 0.0, 1.0, torch.zeros(0), slice(0)

    @property
    def lr(self) -> float:
        """Return the learning rate of the gates."""
        return self._config.route.lr * self._rate

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""
        return f"lower route.lr (it was {self._config.route.lr:g}) or route.backbone_lr"

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._config.seed, "gates", epoch)

    def begin(self, position: Position) -> None:
        """Draw the noise of the epoch's samples; let a frozen backbone keep its statistics, and spare its gradients."""
        uniform = torch.rand(self._n_images, self.depth, generator=generator(self._config.seed, "gumbel", position.epoch))
        self._noise = torch.logit(uniform.clamp(1e-6, 1 - 1e-6)).to(self._machine.device)
        self._rate = (1 + math.cos(math.pi * (position.epoch - 1) / self.epochs)) / 2
        trains_backbone = self._config.route.backbone_lr > 0
        self.student.train()
        self.student.network.train(trains_backbone)
        self.student.network.requires_grad_(trains_backbone)

    def announce(self, position: Position) -> None:
        """Set the mean cost that the next step aims at, and its noise."""
        narrowed = min(1.0, (position.total + 1) / (NARROWING * self.epochs * position.steps))
        self._aim = (1 - narrowed) + narrowed * self._aim_at
        size = self._config.train.batch_size
        batch, group = slice(position.step * size, min((position.step + 1) * size, self._n_images)), self._machine.group
        self._now = share_of(batch, process=group.rank, processes=group.size)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients."""
        route, costs = self._config.route, self._costs
        with self._machine.autocast():
            logits, keep = self.student.relaxed(images, self._noise[self._now], temperature=route.gumbel_temperature)
            with torch.no_grad():
                teacher_logits = self._teacher(images)
        spent = costs.fixed / costs.full + (keep.float() * self._residual_shares).sum(dim=1).mean()
        loss = _distilled(logits, teacher_logits, labels, config=self._config) + route.budget_weight * (spent - self._aim) ** 2
        loss.backward()
        return logits, loss

    def shared(self) -> Shared:
        """Return what several processes average."""
        return self._shared

    def take(self) -> None:
        """Take the step."""
        self._adam.step(rate=self._rate)

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation:
        """Read the gated network off val."""
        if self._config.route.backbone_lr > 0:
            reestimate_batchnorm(self.student, train, augment=augment, machine=self._machine)
        return evaluate(self.student, val, machine=self._machine)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and moments."""
        return {f"network.{name}": tensor for name, tensor in self.student.state_dict().items()} | self._adam.moments

    def counts(self) -> dict[str, int | None]:
        """Return how many steps the moments have seen."""
        return {"n_steps": self._adam.n_steps}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted training."""
        self.student.load_state_dict({name: tensors[f"network.{name}"] for name in self.student.state_dict()})
        self._adam.load(tensors, n_steps=progress.counts["n_steps"] or 0)


def _distilled(logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, config: Config) -> Tensor:
    """Weigh what the labels ask for against the teacher's logits."""
    weight = config.route.distill_weight
    asked = F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing)
    return (1 - weight) * asked + weight * distillation_loss(logits, teacher_logits, temperature=config.route.distill_temperature)


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
    cost = costs.fixed + sum(count * residual for count, residual in zip(counts, costs.residuals, strict=True)) / len(split)
    n_open = torch.bincount(is_open.sum(dim=1), minlength=is_open.shape[1] + 1).tolist()
    return GatedOutcome(shift, cost, right, len(split), tuple(count / len(split) for count in counts), tuple(n_open))
