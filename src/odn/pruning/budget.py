"""Count a gated network as a smooth function of its gates, and close gates until the count is within a budget.

Source: expected cost from independent gates: Louizos et al., arXiv 1712.01312, section 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from odn.models.network import DepthNetwork
from odn.pruning.gates import Gates

BudgetMetric = Literal["macs", "params", "bytes"]
FLOAT_BYTES, COUNTER_BYTES = 4, 8  # of a number, and of a BatchNorm's count of batches


@dataclass(frozen=True)
class Coefficient:
    """Say what a convolution costs with its BatchNorm: for each pair of channels read and written, each written, and as such."""

    pair: float
    written: float
    fixed: float


@dataclass(frozen=True)
class Coefficients:
    """Hold the cost coefficients of every convolution of the gates, in their order, and the head."""

    convs: tuple[Coefficient, ...]
    n_image_channels: int
    head_read: float  # for each channel that the head reads
    head_fixed: float


def cost_coefficients(network: DepthNetwork, gates: Gates, *, metric: BudgetMetric, height: int, width: int) -> Coefficients:
    """Count the cost coefficients of the parts of a network for images of `height` x `width`."""
    pixels, n_classes = _pixels(network, height, width), network.architecture.n_classes
    size = FLOAT_BYTES if metric == "bytes" else 1
    found = []
    for gate in gates.convs:
        conv = network.get_submodule(gate.name)
        assert isinstance(conv, nn.Conv2d)
        kernel = conv.kernel_size[0] * conv.kernel_size[1]
        if metric == "macs":
            found.append(Coefficient(kernel * pixels[gate.name], 0, 0))
        else:
            found.append(Coefficient(size * kernel, 2 * size * (2 if metric == "bytes" else 1), COUNTER_BYTES if metric == "bytes" else 0))
    fixed = 0 if metric == "macs" else size * n_classes
    return Coefficients(tuple(found), network.architecture.in_channels, size * n_classes, fixed)


@torch.no_grad()
def _pixels(network: DepthNetwork, height: int, width: int) -> dict[str, int]:
    """Return the size of the map that each convolution writes."""
    pixels: dict[str, int] = {}

    def noting(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def note(module: nn.Module, inputs: object, output: Tensor) -> None:  # noqa: ARG001  the signature of a hook
            pixels[name] = output.shape[2] * output.shape[3]

        return note

    hooks = [module.register_forward_hook(noting(name)) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    network(torch.zeros(1, network.architecture.in_channels, height, width, device=device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return pixels


def expected(gates: Gates, coefficients: Coefficients, open_: Tensor) -> Tensor:
    """Return the expected cost () where each gate is open with its own probability (G,); where all are 0 or 1, the exact cost."""
    counts = {group.start: open_[group].sum() for group, _ in gates.groups}
    return torch.as_tensor(_cost(gates, coefficients, counts, {block: open_[block] for block in gates.blocks}))


def _cost(gates: Gates, coefficients: Coefficients, counts: Mapping[int, Any], blocks: Mapping[int, Any]) -> Any:
    """Add up the cost of so many channels in each group (by its first gate) and of these blocks, as numbers or as tensors."""
    total = coefficients.head_fixed + coefficients.head_read * counts[gates.streams[-1].start]
    for conv, coefficient in zip(gates.convs, coefficients.convs, strict=True):
        n_read = counts[conv.reads.start] if conv.reads is not None else coefficients.n_image_channels
        n_written = counts[conv.writes.start]
        cost = coefficient.pair * n_read * n_written + coefficient.written * n_written + coefficient.fixed
        total = total + (cost * blocks[conv.block] if conv.block is not None else cost)
    return total


class _Closing:
    """Hold which gates are open, and how many of each group, while gates are closed and opened one at a time."""

    def __init__(self, gates: Gates) -> None:
        self.gates, self.open = gates, [1.0] * gates.n
        self.group = {i: (group, block) for group, block in gates.groups for i in range(group.start, group.stop)}
        self.counts = {group.start: float(group.stop - group.start) for group, _ in gates.groups}
        self.blocks = dict.fromkeys(gates.blocks, 1.0)

    def put(self, gate: int, value: float) -> None:
        """Open (1) or close (0) a gate."""
        self.open[gate] = value
        if gate in self.blocks:
            self.blocks[gate] = value
        else:
            self.counts[self.group[gate][0].start] += 2 * value - 1

    def closable(self, gate: int) -> int | None:
        """Return the gate that is closed in the turn of this one: itself, its block where it is the last inner channel, or none."""
        group, block = self.group.get(gate, (None, gate))
        if group is not None and self.counts[group.start] > 1:
            return gate
        return block if block is not None and self._may_go(block) else None

    def _may_go(self, block: int) -> bool:
        projects = dict(zip(self.gates.blocks, self.gates.projects, strict=True))
        n_left = sum(bool(self.blocks[one]) or stays for one, stays in projects.items())
        return bool(self.blocks[block]) and (n_left > 1 or projects[block])


def least(gates: Gates, coefficients: Coefficients) -> float:
    """Return the least cost that a cut can come to."""
    return float(expected(gates, coefficients, closed_to(gates, coefficients, torch.zeros(gates.n), budget=0.0)))


def closed_to(gates: Gates, coefficients: Coefficients, scores: Tensor, *, budget: float) -> Tensor:
    """Close the lowest scores (G,) until the cost is within `budget`; return what is open, as 0 and 1 (G,) of float64 on the CPU.

    A stream keeps its highest channel; a block whose last inner channel would go is closed whole, and one block stays where no shortcut
    projects. Then what fits is opened again, the highest scores first. Where even the least is too much, that is returned.
    """
    values = scores.detach().cpu().double()
    state, closed = _Closing(gates), []

    def is_too_much() -> bool:
        return bool(_cost(gates, coefficients, state.counts, state.blocks) > budget)

    for gate in values.argsort(stable=True).tolist():
        if not is_too_much():
            break
        target = state.closable(gate)
        if target is not None:
            state.put(target, 0.0)
            closed.append(target)
    for gate in sorted(closed, key=lambda i: float(values[i]), reverse=True):
        state.put(gate, 1.0)
        if is_too_much():
            state.put(gate, 0.0)
    return torch.tensor(state.open, dtype=torch.float64)
