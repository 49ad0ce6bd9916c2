"""Train a network that is pruned on the way: first as it is, then with the gated one beside it, in the end what the gates left.

In each step with gates the ungated network learns from the labels, and the gated one, on the same weights, from the labels and from
what the ungated one says. Cut, it goes on learning from the labels and from the ungated network, which stays as it is.
Source: a network and its parts in one step, the whole teaching the parts: Yu and Huang, arXiv 1903.05134, section 3.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.errors import DataError
from odn.models.network import DepthNetwork
from odn.models.stored_networks import misfit
from odn.modes import prune_phases
from odn.pruning.budget import Coefficients, closed_to, expected
from odn.pruning.gates import Gates, gated_forward, with_gates
from odn.pruning.hard_concrete import Scores, p_open, sampled, settled
from odn.pruning.surgery import cut
from odn.searching.data import SearchData
from odn.sections import AugmentConfig
from odn.training.distillation import distillation_loss
from odn.training.evaluation import Evaluation, evaluate, reestimate_batchnorm
from odn.training.fit import PhaseName, Position, Progress
from odn.training.group import Shared
from odn.training.optim import Updates
from odn.training.seed import generator
from odn.training.state import TrainState

FIRST_SCORE = 2.0  # of every gate: open with a probability of 0.97
RAMP = 0.75  # of the epochs with gates, in which the cost that is asked for falls from all to the budget
MULTIPLIER_RATE = 0.5  # of the multiplier, an epoch, where the cost is twice what is asked for
CUT = "left."  # before the names of the cut network's tensors in a checkpoint


@dataclass(frozen=True)
class Budget:
    """Hold what may be cut, what it costs, and what the cut network may cost."""

    gates: Gates
    coefficients: Coefficients
    whole_cost: float  # of the whole backbone, in the unit of the budget
    start_cost: float  # of the network that pruning begins with
    limit: float  # of the cut network


class PruneTask:
    """Train, gate and cut one network; `state` is the ungated one, `left` what the gates left of it, once they are closed."""

    phase: PhaseName = "stable"
    later: str | None = CUT
    replayable = False

    def __init__(self, state: TrainState, budget: Budget, *, data: SearchData, config: Config, depth: int, steps: int) -> None:
        self.depth, self.epochs, self.state, self.budget = depth, config.prune.epochs, state, budget
        self.left: TrainState | None = None
        self.draws_inside = state.network.draws_inside
        self.scores = Scores.fresh(budget.gates.n, score=FIRST_SCORE, device=data.machine.device)
        self._data, self._config, self._steps, self._machine = data, config, steps, data.machine
        self._updates = self._updates_of(state)
        self._position, self._rate, self._draws, self._excess = Position(1, 0, steps), 0.0, torch.zeros(0), torch.zeros(())

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        return self._config.train.lr * self._rate

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""
        return "lower train.lr or prune.gate_lr"

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._config.seed, "batches", self.depth, self.phase, epoch)

    def begin(self, position: Position) -> None:
        """Draw the gates' noise of the epoch; close them and cut when their epochs are over."""
        dense, gated, _ = prune_phases(self._config.prune)
        draws = generator(self._config.seed, "gates", self.depth, position.epoch)
        self._draws = torch.rand(position.steps, self.budget.gates.n, generator=draws).to(self._machine.device)
        if position.epoch > dense + gated and self.left is None:
            self._close()
        (self.left or self.state).network.train()

    def announce(self, position: Position) -> None:
        """Set the rate of the next step: constant after a warm-up, and of the cut network on its way to 0."""
        self._position, (dense, gated, settle) = position, prune_phases(self._config.prune)
        if self.left is None:
            self._rate = min(1.0, (position.total + 1) / (round(self._config.train.warmup_epochs * position.steps) + 1))
        else:
            self._rate = 1 - (position.total - (dense + gated) * position.steps) / (settle * position.steps)
        self._updates.announce(rate=self._rate)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients."""
        if self.left is not None:
            return self._learn_cut(self.left.network, images, labels)
        if self._is_gated():
            return self._learn_gated(images, labels)
        return self._learn_dense(images, labels)

    def shared(self) -> Shared:
        """Return what several processes average."""
        shared = self._updates.shared
        return Shared([*shared.parameters, self.scores.values], shared.statistics) if self._is_gated() else shared

    def take(self) -> None:
        """Take the step of the weights and, where there are gates, of their scores."""
        if self._is_gated():
            rates = {"lr": self._config.prune.gate_lr, "multiplier_rate": MULTIPLIER_RATE / self._position.steps}
            self.scores.step(excess=self._excess, **rates)
        self._updates.take()

    def _is_gated(self) -> bool:
        return self.left is None and self._position.epoch > prune_phases(self._config.prune)[0]

    def _learn_dense(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self._machine.autocast():
            logits = self.state.network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._config.train.label_smoothing)
        loss.backward()
        return logits, loss

    def _learn_gated(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        network, position, scores = self.state.network, self._position, self.scores
        dense, gated, _ = prune_phases(self._config.prune)
        with self._machine.autocast():
            logits = network(images)
        own = F.cross_entropy(logits.float(), labels, label_smoothing=self._config.train.label_smoothing)
        with self._machine.autocast():
            through = gated_forward(network, self.budget.gates, sampled(scores.values, self._draws[position.step]), images)
        passed = (position.total - dense * position.steps + 1) / (RAMP * gated * position.steps)
        self._excess = excess = _excess(self.budget, scores, passed=min(1.0, passed))
        loss = own + _taught(self._config, through, labels, teacher=logits) + scores.penalty(excess)
        loss.backward()
        return logits, loss

    def _learn_cut(self, network: DepthNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), self._machine.autocast():
            teacher_logits = self.state.average(images) if self._config.prune.distill_weight > 0 else None
        with self._machine.autocast():
            logits = network(images)
        loss = _taught(self._config, logits, labels, teacher=teacher_logits if teacher_logits is not None else logits)
        loss.backward()
        return logits, loss

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation:
        """Read the averaged weights off val: as they are, with the gates settled, or cut."""
        if self.left is not None:
            network = self.left.average
        elif self._is_gated():
            network = with_gates(self.state.average, self.budget.gates, settled(self.scores.values))
        else:
            network = self.state.average
        reestimate_batchnorm(network, train, augment=augment, machine=self._machine)
        return evaluate(network, val, machine=self._machine)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of both networks and of the gates."""
        cut_off = self.left.tensors() if self.left is not None else {}
        return self.state.tensors() | self.scores.tensors() | {f"{CUT}{name}": tensor for name, tensor in cut_off.items()}

    def counts(self) -> dict[str, int | None]:
        """Return how long the averages and the gates' moments are; `n_left` is None before the cut."""
        n_left = self.left.n_averaged if self.left is not None else None
        return {"n_averaged": self.state.n_averaged, "n_steps": self.scores.n_steps, "n_left": n_left}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted training; where it was cut already, the same cut gives the network that the weights fit."""
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(CUT)}
        self.state.load(own, n_averaged=progress.counts["n_averaged"] or 0)
        self.scores.load(own, n_steps=progress.counts["n_steps"] or 0)
        n_left = progress.counts["n_left"]
        if n_left is not None:
            kept, left = {name.removeprefix(CUT): tensors[name] for name in tensors if name.startswith(CUT)}, self._close()
            if wrong := misfit(left.tensors(), kept):
                raise DataError(
                    f"what was kept of an interrupted pruning is damaged: {wrong}; delete .odn/progress and run 'dvc repro' again"
                )
            left.load(kept, n_averaged=n_left)

    def _close(self) -> TrainState:
        """Close gates until the budget is kept and cut network, average and momentum; the ungated average is ready to teach after it."""
        budget, manifest = self.budget, self._data.manifest
        reestimate_batchnorm(self.state.average, self._data.train, augment=self._config.augment, machine=self._machine)
        self.state.average.eval()
        open_ = closed_to(budget.gates, budget.coefficients, self.scores.values, budget=budget.limit)

        def smaller(network: DepthNetwork) -> DepthNetwork:
            return self._machine.to_device(cut(network, budget.gates, open_, height=manifest.height, width=manifest.width))

        moving = copy.deepcopy(self.state.network)
        moving.load_state_dict({**moving.state_dict(), **self.state.momentum})
        momentum = {name: parameter.detach().clone() for name, parameter in smaller(moving).named_parameters()}
        network, average = smaller(self.state.network), smaller(self.state.average).requires_grad_(False)
        self.left = TrainState(network=network, momentum=momentum, average=average, n_averaged=self.state.n_averaged)
        self._updates = self._updates_of(self.left)
        return self.left

    def _updates_of(self, state: TrainState) -> Updates:
        return Updates(state, train=self._config.train, machine=self._machine, steps_per_epoch=self._steps)


def _excess(budget: Budget, scores: Scores, *, passed: float) -> Tensor:
    """Return by which fraction the expected cost is above what is asked for when this part of the way to the budget is passed.

    What is asked for falls by the same fraction with every step.
    """
    asked = budget.start_cost * (budget.limit / budget.start_cost) ** passed
    excess: Tensor = expected(budget.gates, budget.coefficients, p_open(scores.values)) / asked - 1
    return excess


def _taught(config: Config, logits: Tensor, labels: Tensor, *, teacher: Tensor) -> Tensor:
    """Return the loss against the labels and against the teacher's logits, both (N, K)."""
    weight = config.prune.distill_weight
    own = F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing)
    return (1 - weight) * own + weight * distillation_loss(logits, teacher, temperature=config.prune.temperature)
