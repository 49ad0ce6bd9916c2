"""Gates that are learnt: a score each, from which a value between 0 and 1 is drawn that is often exactly 0 or 1.

Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, arXiv 1712.01312, section 2.2 and equations 10 to 13.
G gates.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1  # of the concrete distribution, and what it is stretched to before it is clipped to [0, 1]
EVEN = 1e-6  # uniform draws keep this far from 0 and 1
PENALTY = 4.0  # weight of a cost that is too high by its own size
MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.99, 1e-8  # of the steps


def sampled(scores: Tensor, draws: Tensor) -> Tensor:
    """Return the values (G,) that uniform draws (G,) in [0, 1) give; gradients reach the scores."""
    even = draws.clamp(EVEN, 1 - EVEN)
    soft = torch.sigmoid((even.log() - (1 - even).log() + scores) / TEMPERATURE)
    return (soft * (HIGH - LOW) + LOW).clamp(0, 1)


def p_open(scores: Tensor) -> Tensor:
    """Return the probability (G,) that a value is not 0."""
    return torch.sigmoid(scores - TEMPERATURE * math.log(-LOW / HIGH))


def settled(scores: Tensor) -> Tensor:
    """Return the values (G,) without chance."""
    return (torch.sigmoid(scores) * (HIGH - LOW) + LOW).clamp(0, 1)


@dataclass
class Scores:
    """Hold scores, the running moments of their gradients, and the Lagrange multiplier of a cost that is too high.

    A step is one of Adam's: gradients of gates differ by orders of magnitude from layer to layer. The multiplier rises while the expected
    cost is above what is asked for, and falls, not below 0, while it is under it: the method of multipliers.
    Adam's moments are not `training.adam`'s, which round differently: pruned networks would be others.
    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.
    """

    values: Tensor  # (G,)
    mean: Tensor  # (G,)
    square: Tensor  # (G,)
    multiplier: Tensor  # ()
    n_steps: int = 0

    @classmethod
    def fresh(cls, n: int, *, score: float, device: torch.device) -> Self:
        """Make equal scores."""
        zeros = torch.zeros(n, device=device)
        return cls(torch.full_like(zeros, score).requires_grad_(True), zeros, zeros.clone(), torch.zeros((), device=device))

    def penalty(self, excess: Tensor) -> Tensor:
        """Return what an expected cost that is too high by `excess` () adds to the loss.

        Source: Rockafellar's augmented Lagrangian for an inequality; for gates, Wang et al., arXiv 1910.04732, section 3.3.
        """
        pressed: Tensor = torch.relu(self.multiplier + PENALTY * excess).square() / (2 * PENALTY)
        return pressed

    @torch.no_grad()
    def step(self, *, lr: float, excess: Tensor, multiplier_rate: float) -> None:
        """Update scores and multiplier, and clear the gradient."""
        gradient = self.values.grad
        assert gradient is not None
        self.n_steps += 1
        self.mean.lerp_(gradient, 1 - MEAN_DECAY)
        self.square.lerp_(gradient.square(), 1 - SQUARE_DECAY)
        mean, square = self.mean / (1 - MEAN_DECAY**self.n_steps), self.square / (1 - SQUARE_DECAY**self.n_steps)
        self.values.sub_(lr * mean / (square.sqrt() + EPSILON))
        self.multiplier.add_(multiplier_rate * excess.detach()).clamp_(min=0)
        self.values.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint has to hold, by name."""
        return {"gates.values": self.values, "gates.mean": self.mean, "gates.square": self.square, "gates.multiplier": self.multiplier}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], *, n_steps: int) -> None:
        """Take over what `tensors()` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        self.n_steps = n_steps
