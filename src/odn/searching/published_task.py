"""The tasks of the published procedure: a warm-up of all depths at once, and a depth that waits for progress.

Source: Tareen and Tareen, arXiv 2510.10764, and the authors' notebooks (github.com/saktx/Optimally_Deep_Networks).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.config import Config
from odn.data.batches import Images
from odn.models.network import DepthNetwork
from odn.searching.convergence import Stop
from odn.sections import AugmentConfig
from odn.training.device import Machine
from odn.training.evaluation import Evaluation, evaluate
from odn.training.fit import PhaseName, Position, Progress
from odn.training.group import Shared
from odn.training.optim import Scale, gradients_of
from odn.training.seed import generator

DECAY, DECAY_EVERY = 0.6, 5  # the rate is multiplied by 0.6 at every fifth epoch in a row without progress
SEARCHING, TUNING = 3, 4  # decimals of the accuracy that counts as progress: 0.1 %, then 0.01 %


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
            return Stop("max_epochs", f"paper.max_epochs {self.max_epochs} is reached")
        if self.tunes:
            return Stop("flat", f"{waited}, fine-tuned") if self.idle >= self.patience else None
        if self.idle >= self.patience and self.best <= self.target and not self.deepest:
            return Stop("flat", waited)
        if self.idle >= self.patience or self.best >= self.target or self.deepest:
            self.tunes, self.idle = True, 0
        return None


class PlainSgd:
    """Step with momentum and weight decay on every parameter, as torch.optim.SGD does, for the summed losses at some depths.

    Plain momentum, and decay of BatchNorm and biases too, where `training.optim` has Nesterov's and decays matrices only.
    """

    def __init__(self, network: DepthNetwork, *, depths: tuple[int, ...], config: Config, machine: Machine) -> None:
        self.network, self.depths, self.train, self.machine = network, depths, config.train, machine
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
        self.scale, self.shared = Scale(machine), Shared.of(network)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients; return logits and loss of the last of `depths`."""
        for depth in self.depths:
            with self.machine.autocast():
                logits = self.network(images, depth)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.train.label_smoothing)
            loss.backward()
        return logits, loss

    @torch.no_grad()
    def take(self) -> None:
        """Take a step of the announced rate."""
        parameters: list[Tensor] = list(self.network.parameters())
        gradients = gradients_of(parameters)
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

    The rate falls along a cosine, epoch by epoch. Nothing is evaluated on val.
    """

    phase: PhaseName = "warm-up"
    later: str | None = None
    replayable = True

    def __init__(self, network: DepthNetwork, *, config: Config, machine: Machine) -> None:
        self.sgd = PlainSgd(network, depths=tuple(reversed(network.head_depths)), config=config, machine=machine)
        self.draws_inside = network.draws_inside
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
        """Compute the gradients."""
        return self.sgd.learn(images, labels)

    def shared(self) -> Shared:
        """Return what several processes average."""
        return self.sgd.shared

    def take(self) -> None:
        """Take the step."""
        self.sgd.take()

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> None:
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
        self.draws_inside = network.draws_inside
        self.depth, self.epochs, self.lr = network.depth, config.paper.max_epochs, first_lr
        self.best = _copied(network)
        self.stop: Stop | None = None
        self.patience = Patience(
            target=config.paper.target, patience=config.paper.patience, max_epochs=config.paper.max_epochs, deepest=deepest
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
        """Compute the gradients."""
        return self.sgd.learn(images, labels)

    def shared(self) -> Shared:
        """Return what several processes average."""
        return self.sgd.shared

    def take(self) -> None:
        """Take the step."""
        self.sgd.take()

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation:
        """Read the weights off val as they are, and keep them where they are the best."""
        seen = evaluate(self.sgd.network, val, machine=self._machine)
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


def _copied(network: DepthNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
