"""SGD with Nesterov momentum and a moving average of the weights, each one fused call per step over all parameters.

Written out because building a `torch.optim` optimiser imports torch._dynamo, which takes longer than a depth of digits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.config import TrainConfig
from odn.models.network import DepthNetwork


@dataclass
class Optimiser:
    """Hold the network being trained, its momentum and the moving average of its weights, all by parameter name."""

    network: DepthNetwork
    momentum: dict[str, Tensor]
    average: DepthNetwork  # the same network, holding the averaged weights
    n_averaged: int = 0  # steps since the average began

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint has to hold, by name."""
        network = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        average = {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return network | average | {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}

    def load(self, tensors: dict[str, Tensor], *, n_averaged: int) -> None:
        """Take over what `tensors()` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.average.load_state_dict(part("average."))
        for name, tensor in part("momentum.").items():
            self.momentum[name].copy_(tensor)
        self.n_averaged = n_averaged


class Sgd:
    """Step the optimiser: the lists of tensors are made once, so that a step is a handful of fused calls."""

    def __init__(self, optimiser: Optimiser, *, train: TrainConfig, steps_per_epoch: int) -> None:
        """Sort the parameters into those with weight decay (matrices and kernels) and those without (BatchNorm, biases)."""
        self.optimiser, self.train = optimiser, train
        self.highest_decay = math.exp(-1 / (train.ema_epochs * steps_per_epoch))
        named = dict(optimiser.network.named_parameters())
        averaged = dict(optimiser.average.named_parameters())
        self.parameters: list[Tensor] = list(named.values())
        self.decayed = [i for i, parameter in enumerate(self.parameters) if parameter.ndim > 1]
        self.momenta = [optimiser.momentum[name] for name in named]
        self.averages: list[Tensor] = [averaged[name] for name in named]

    @torch.no_grad()
    def step(self, *, lr: float) -> None:
        """Update weights, momentum and average from the gradients, and clear those."""
        gradients = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in self.parameters]
        torch._foreach_add_([gradients[i] for i in self.decayed], [self.parameters[i] for i in self.decayed], alpha=self.train.weight_decay)
        torch._foreach_mul_(self.momenta, self.train.momentum)
        torch._foreach_add_(self.momenta, gradients)
        torch._foreach_add_(gradients, self.momenta, alpha=self.train.momentum)
        torch._foreach_add_(self.parameters, gradients, alpha=-lr)
        steps = self.optimiser.n_averaged = self.optimiser.n_averaged + 1
        decay = min(self.highest_decay, steps / (10 + steps))  # an average of constant decay lags far behind at first
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        for parameter in self.parameters:
            parameter.grad = None
