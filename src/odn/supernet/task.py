"""Train every exit of a network at once over shared forward passes.

The deepest exit at full width learns from the labels; it teaches the others, who learn from the labels too.
Source: in-place distillation, arXiv 1903.05134, section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.data.batches import Images
from odn.models.network import DepthNetwork
from odn.sections import AugmentConfig, SupernetConfig, TrainConfig
from odn.supernet.elastic import forward_narrowed, sort_channels
from odn.supernet.sandwich import Pass, Plan, rate_at
from odn.training.device import Machine
from odn.training.distillation import distillation_loss
from odn.training.evaluation import Evaluation, evaluate_exits, reestimate_batchnorm
from odn.training.fit import PhaseName, Position, Progress
from odn.training.seed import generator
from odn.training.state import TrainState
from odn.training.state_task import StateTask


class SupernetTask(StateTask):
    """Train all exits at once; rows are of the shallowest.

    After a row the averaged network holds the weights that were evaluated, and BatchNorm's statistics for them at full width.
    """

    phase: PhaseName = "stable"
    replayable = False  # the passes differ from step to step

    def __init__(self, state: TrainState, plan: Plan, *, settings: TrainConfig, machine: Machine, steps: int) -> None:
        """Take the state to train, and the steps of an epoch."""
        super().__init__(state, settings=settings, machine=machine, steps=steps)
        self.depth, self.epochs = plan.depths[0], plan.settings.epochs
        self.n_correct = torch.zeros(plan.settings.epochs, len(plan.depths), dtype=torch.int64)  # of val, by epoch and exit
        self._epoch = 0
        self._plan = plan
        self._shared = [parameter for name, parameter in state.network.named_parameters() if not name.startswith("heads.")]
        self._passes: list[tuple[Pass, ...]] = []
        self._now: tuple[Pass, ...] = ()

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._plan.seed, "batches", "supernet", epoch)

    def begin(self, position: Position) -> None:
        """Draw the passes of the epoch; where widths open, put the important channels first."""
        self._epoch = position.epoch
        if position.step == 0 and self._plan.opens_widths(position.epoch):
            _sort(self._state)
        self._passes = list(self._plan.passes(position.epoch, steps=position.steps))
        self._state.network.train()

    def announce(self, position: Position) -> None:
        """Set passes and rate of the next step."""
        self._now, warmup_epochs = self._passes[position.step], self._settings.warmup_epochs
        self._rate = rate_at(position.total, settings=self._plan.settings, steps_per_epoch=position.steps, warmup_epochs=warmup_epochs)
        self._updates.announce(rate=self._rate)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients; return the logits of the shallowest exit."""
        with self._machine.autocast():
            logits = _logits(self._state.network, images, self._now, self._plan.depths)
        loss = joint_loss(logits, labels, self._now, settings=self._plan.settings, label_smoothing=self._settings.label_smoothing)
        loss.backward()
        share_gradient(self._shared, n_losses=sum(len(one.depths) for one in self._now) / len(self._now))
        return logits[0][self.depth], loss

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation:
        """Read every exit of the averaged weights off val."""
        reestimate_batchnorm(self._state.average, train, augment=augment, machine=self._machine)
        seen = evaluate_exits(self._state.average, val, machine=self._machine)
        self.n_correct[self._epoch - 1] = torch.tensor([seen[depth].n_correct for depth in self._plan.depths])
        return seen[self.depth]

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, averaged weights, momentum, and what every exit got right so far."""
        return super().tensors() | {"exits.n_correct": self.n_correct}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted training."""
        super().restore(tensors, progress)
        self.n_correct = tensors["exits.n_correct"]


def joint_loss(
    logits: list[dict[int, Tensor]], labels: Tensor, passes: tuple[Pass, ...], *, settings: SupernetConfig, label_smoothing: float
) -> Tensor:
    """Return the losses of the exits that learn, summed over exits and averaged over passes: logits (N, K) by depth for each pass.

    The deepest exit of the first pass is the teacher, and learns from the labels alone.
    """
    teacher = logits[0][passes[0].depths[-1]]
    losses = []
    for there, one in zip(logits, passes, strict=True):
        for depth in one.depths:
            loss = F.cross_entropy(there[depth].float(), labels, label_smoothing=label_smoothing)
            if there[depth] is not teacher and settings.distill_weight > 0:
                loss = loss + settings.distill_weight * distillation_loss(there[depth], teacher, temperature=settings.temperature)
            losses.append(loss)
    return torch.stack(losses).sum() / len(passes)


def _logits(network: DepthNetwork, images: Tensor, passes: tuple[Pass, ...], depths: tuple[int, ...]) -> list[dict[int, Tensor]]:
    """Run the passes; the first gives the logits of every exit, also of those that do not learn from it."""
    first, *others = passes
    return [
        forward_narrowed(network, images, depths, first.widths),
        *(forward_narrowed(network, images, one.depths, one.widths) for one in others),
    ]


def share_gradient(parameters: list[nn.Parameter], *, n_losses: float) -> None:
    """Let stem and blocks take the mean of what the exits ask for, as the rates are made for one loss; each head has its own alone."""
    torch._foreach_div_([parameter.grad for parameter in parameters if parameter.grad is not None], n_losses)


def _sort(state: TrainState) -> None:
    """Put the important channels first, before the others are left out: in the network, its momentum and its average alike."""
    sort_channels([state.network.state_dict(), state.momentum, state.average.state_dict()], like=state.average)
