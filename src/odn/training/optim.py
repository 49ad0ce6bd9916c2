"""Step with Muon or SGD with Nesterov momentum, and average the weights, in a handful of fused calls.

Written out because the first `torch.optim` optimizer imports torch._dynamo, 1.0 to 1.5 s beside the 1.6 s of torch itself; its functions
without a class, such as `torch.optim.sgd.sgd`, do not, but wait for the GPU where the rate is a tensor, which a replayed step needs.
"""

import math

import torch
from torch import Tensor

from odn.sections import TrainConfig
from odn.training.device import Machine
from odn.training.group import Shared
from odn.training.muon import orthogonalised
from odn.training.state import TrainState


class Scale:
    """Hold a factor that changes from step to step: on a GPU as a tensor in one place, so that a replayed step reads it."""

    def __init__(self, machine: Machine) -> None:
        self.place = torch.zeros((), device=machine.device) if machine.device.type == "cuda" else None
        self.value = 0.0

    def set(self, value: float) -> None:
        """Take another value."""
        self.value = value
        if self.place is not None:
            self.place.fill_(value)

    def decay_(self, targets: list[Tensor], share: float) -> None:
        """Shorten the targets by this share of the factor's size."""
        if share > 0:
            torch._foreach_mul_(targets, 1 - share * abs(self.value) if self.place is None else 1 - share * self.place.abs())

    def add_(self, targets: list[Tensor], changes: list[Tensor]) -> None:
        """Add the scaled changes to the targets."""
        if self.place is None:
            torch._foreach_add_(targets, changes, alpha=self.value)
        else:
            torch._foreach_add_(targets, torch._foreach_mul(changes, self.place))

    def lerp_(self, targets: list[Tensor], ends: list[Tensor]) -> None:
        """Move the targets this fraction of the way to the ends."""
        if self.place is None:
            torch._foreach_lerp_(targets, ends, self.value)
        else:
            self.add_(targets, list(torch._foreach_sub(ends, targets)))


class Updates:
    """Step a training state: the lists of tensors are made once, so that a step is a handful of fused calls.

    With `train.optimizer: muon` the kernels and matrices of the blocks take orthogonalised steps of the rate `train.muon_lr`; all else,
    and with `sgd` everything, takes SGD's steps of the rate `train.lr`.
    """

    def __init__(self, state: TrainState, *, train: TrainConfig, machine: Machine, steps_per_epoch: int) -> None:
        """Sort the parameters into kernels for Muon, those with weight decay (matrices), and those without (BatchNorm, biases)."""
        self.state, self.train = state, train
        is_fast = machine.precision == "bf16" and machine.device.type == "cuda"
        self.product_dtype = torch.bfloat16 if is_fast else torch.float32
        self.highest_decay = math.exp(-1 / (train.ema_epochs * steps_per_epoch))
        named: dict[str, Tensor] = dict(state.network.named_parameters())
        averaged: dict[str, Tensor] = dict(state.average.named_parameters())
        is_matrix = {name: name.startswith("blocks.") and tensor.ndim in (2, 4) for name, tensor in named.items()}
        kernels = [name for name in named if train.optimizer == "muon" and is_matrix[name]]
        others = [name for name in named if name not in set(kernels)]
        self.kernels, self.others = [named[name] for name in kernels], [named[name] for name in others]
        self.decayed = [i for i, parameter in enumerate(self.others) if parameter.ndim > 1]
        self.kernel_momenta, self.other_momenta = ([state.momentum[name] for name in names] for names in (kernels, others))
        self.parameters, self.shared = list(named.values()), Shared.of(state.network)
        self.averages = [averaged[name] for name in named]
        self.kernel_scale, self.other_scale, self.average_weight = (Scale(machine) for _ in range(3))

    def step(self, *, rate: float) -> None:
        """Update weights, momentum and average from the gradients, and clear those; `rate` is a fraction of the rates of `train`."""
        self.announce(rate=rate)
        self.take()

    def announce(self, *, rate: float) -> None:
        """Say how long the next step will be, which `take` then takes, itself or replayed."""
        steps = self.state.n_averaged = self.state.n_averaged + 1
        decay = min(self.highest_decay, steps / (10 + steps))  # an average of constant decay lags far behind at first
        self.kernel_scale.set(-rate * self.train.muon_lr)
        self.other_scale.set(-rate * self.train.lr)
        self.average_weight.set(1 - decay)

    @torch.no_grad()
    def take(self) -> None:
        """Take the step that was announced."""
        self._step_kernels()
        self._step_others()
        self.average_weight.lerp_(self.averages, self.parameters)
        for parameter in self.parameters:
            parameter.grad = None

    def _step_kernels(self) -> None:
        if self.kernels:
            ahead = self._nesterov(gradients_of(self.kernels), self.kernel_momenta)
            self.kernel_scale.decay_(self.kernels, self.train.muon_weight_decay)
            self.kernel_scale.add_(self.kernels, orthogonalised(ahead, dtype=self.product_dtype))

    def _step_others(self) -> None:
        gradients = gradients_of(self.others)
        torch._foreach_add_([gradients[i] for i in self.decayed], [self.others[i] for i in self.decayed], alpha=self.train.weight_decay)
        self.other_scale.add_(self.others, self._nesterov(gradients, self.other_momenta))

    def _nesterov(self, gradients: list[Tensor], momenta: list[Tensor]) -> list[Tensor]:
        """Add the gradients to the momenta, and return the gradients with the momenta added."""
        torch._foreach_mul_(momenta, self.train.momentum)
        torch._foreach_add_(momenta, gradients)
        torch._foreach_add_(gradients, momenta, alpha=self.train.momentum)
        return gradients


def gradients_of(parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradient of each parameter, zeros where there is none."""
    return [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in parameters]
