"""Shrink a network unit by unit: channels and blocks go, those first that are worth least for what they cost.

A unit is a channel of a stream, or an inner channel of a block; a block whose last inner channel goes is gone, one that projects keeps its
shortcut. A unit is worth the sum, over steps and over the BatchNorms that write it, of the squared first-order change of the loss if its
output were 0: (gamma · dL/dgamma + beta · dL/dbeta)².
Source: Molchanov et al., Importance Estimation for Neural Network Pruning, arXiv 1906.10771, section 3.2 (gates behind BatchNorm).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.data.dataset import Manifest
from odn.models.ladder import Metric
from odn.models.network import DepthNetwork
from odn.pruning.budget import Closing, Coefficients, cost_coefficients, cost_of_open
from odn.pruning.gates import Gates, gates_of
from odn.pruning.surgery import cut
from odn.training.device import Machine
from odn.training.state import TrainState


@dataclass(frozen=True)
class Limit:
    """Say what a metric (bytes, macs, params) of the network may come to."""

    metric: Metric
    most: float


class Scores:
    """Add up what each unit of a network is worth, in the order of its gates (G,)."""

    def __init__(self, network: DepthNetwork) -> None:
        self.gates = gates_of(network)
        parameters = dict(network.named_parameters())
        self._norms = [(conv, parameters[f"{conv.norm}.weight"], parameters[f"{conv.norm}.bias"]) for conv in self.gates.convs]
        self.values = torch.zeros(self.gates.n, device=next(network.parameters()).device)

    @torch.no_grad()
    def add(self) -> None:
        """Take in the gradients of a step, before they are cleared."""
        for conv, gamma, beta in self._norms:
            if gamma.grad is not None and beta.grad is not None:
                self.values[conv.writes] += (gamma * gamma.grad + beta * beta.grad).square()


def excess(network: DepthNetwork, limits: Sequence[Limit], *, height: int, width: int) -> float:
    """Return how many times as expensive as its limits a network is, by the metric that is furthest above."""
    gates = gates_of(network)
    prices = _prices(network, gates, limits, height=height, width=width)
    return max(cost_of_open(gates, coefficients, torch.ones(gates.n)) / most for coefficients, most in prices)


def chosen(network: DepthNetwork, scores: Scores, limits: Sequence[Limit], *, goal: float, height: int, width: int) -> Tensor:
    """Close one unit after the other until no metric is more than `goal` times its limit; return what is open, 0 or 1 (G,).

    The unit that goes is the one of least worth for each part of the limits that it saves; what is within the goal counts nothing.
    """
    gates, state = scores.gates, Closing(scores.gates)
    prices, values = _prices(network, gates, limits, height=height, width=width), scores.values.double().cpu().tolist()
    queues = [sorted(range(group.start, group.stop), key=lambda unit: (-values[unit], unit)) for group, _ in gates.groups]

    def ratios() -> list[float]:
        return [state.cost(coefficients) / most for coefficients, most in prices]

    while max(now := ratios()) > goal:
        paid, best = sum(max(ratio, goal) for ratio in now), None
        for queue in queues:
            closing = state.closable(queue[-1]) if queue else None
            if closing is None:
                continue
            state.put(closing, 0.0)
            saved = paid - sum(max(ratio, goal) for ratio in ratios())
            state.put(closing, 1.0)
            worth = values[queue[-1]] / max(saved, 1e-12)
            if best is None or worth < best[0]:
                best = (worth, closing, queue)
        if best is None:
            break
        state.put(best[1], 0.0)
        best[2].pop()
    return torch.tensor(state.open, dtype=torch.float64)


def smaller(state: TrainState, gates: Gates, open_: Tensor, *, manifest: Manifest, machine: Machine) -> TrainState:
    """Return a training state with the closed units taken out of weights, momentum and average alike."""

    def left_of(network: DepthNetwork) -> DepthNetwork:
        return machine.to_device(cut(network, gates, open_, height=manifest.height, width=manifest.width))

    moving = copy.deepcopy(state.network)
    moving.load_state_dict({**moving.state_dict(), **state.momentum})
    momentum = {name: parameter.detach().clone() for name, parameter in left_of(moving).named_parameters()}
    network, average = left_of(state.network), left_of(state.average).requires_grad_(False)
    return TrainState(network=network, momentum=momentum, average=average, n_averaged=state.n_averaged)


def _prices(network: DepthNetwork, gates: Gates, limits: Sequence[Limit], *, height: int, width: int) -> list[tuple[Coefficients, float]]:
    return [(cost_coefficients(network, gates, metric=limit.metric, height=height, width=width), limit.most) for limit in limits]
