"""Hold the state of a training: all that the next step, or the next depth, goes on from."""

import copy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odn.models.network import DepthNetwork


@dataclass
class TrainState:
    """Hold the network being trained, its momentum and the moving average of its weights, all by parameter name."""

    network: DepthNetwork
    momentum: dict[str, Tensor]
    average: DepthNetwork  # the same network, holding the averaged weights
    n_averaged: int = 0  # steps since the average began

    @classmethod
    def fresh(cls, network: DepthNetwork) -> Self:
        """Return a network's training state before its first step: without momentum, the average a copy."""
        momentum = {name: _zeros(parameter) for name, parameter in network.named_parameters()}
        return cls(network=network, momentum=momentum, average=copy.deepcopy(network).requires_grad_(False))

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


def _zeros(parameter: Tensor) -> Tensor:
    """Return zeros laid out like a parameter; of shapes alone without `zeros_like`, which imports sympy there: half a second."""
    if parameter.is_meta:
        return torch.zeros(parameter.shape, dtype=parameter.dtype, device="meta")
    return torch.zeros_like(parameter)
