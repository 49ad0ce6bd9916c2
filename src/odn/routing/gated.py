"""A network that decides for each image and block whether the block's residual is computed, by a light gate on the block's input.

Source: Conv-AIG, arXiv 1711.11503, sections 3.1 and 3.2 (gates on pooled features, straight-through Gumbel); SkipNet, arXiv 1711.09485.
Axes: N images, C channels, H rows, W columns, K classes, D blocks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.models.abilities import Skippable, able
from odn.models.network import DepthNetwork, draw, pooled

OPEN_AT_FIRST = 2.0  # bias of a fresh gate, in logits: open with a probability of 0.88


@dataclass(frozen=True)
class Opened:
    """Hold what a gated pass gives, in the order of its images."""

    logits: Tensor  # (N, K)
    is_open: Tensor  # (N, D) bool, which residuals were computed


class Gate(nn.Module):
    """Score how much an image needs a block, from its input averaged over positions: (N, C) -> (N,), to be opened above 0."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels, hidden)
        self.second = nn.Linear(hidden, 1)

    @property
    def macs(self) -> int:
        """Count multiply-accumulates for one image."""
        return self.first.weight.numel() + self.second.weight.numel()

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the score."""
        score: Tensor = self.second(F.relu(self.first(pooled))).squeeze(1)
        return score


class GatedNetwork(nn.Module):
    """Run each block's residual only for the images whose gate is open; the others take the shortcut alone.

    `shift` is added to every score, so that one number trades cost for accuracy. Make one with `gated`.

    Raises:
        ValueError: `hidden` is not a whole number ≥ 1, or the network was cut.
        ConfigError: a block of it has no residual that could be skipped.
    """

    def __init__(self, network: DepthNetwork, *, hidden: int, shift: float = 0.0) -> None:
        super().__init__()
        if type(hidden) is not int or hidden < 1:
            raise ValueError(f"hidden: expected a whole number ≥ 1; got {hidden!r}")
        if network.architecture.is_cut:
            raise ValueError("a network that was cut has no gates: its blocks may lack a residual")
        self.network, self.hidden, self.shift = network, hidden, float(shift)
        self._blocks = tuple(able(list(network.blocks), Skippable, asked_by="routing by gates", way_out="route by confidence"))
        with torch.device(next(network.parameters()).device):
            self.gates = nn.ModuleList(Gate(block.in_channels, hidden) for block in self._blocks)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W); in train mode every residual is computed, for BatchNorm to see."""
        if self.training:
            return self.relaxed(x, x.new_zeros(len(x), self.network.depth), temperature=1.0)[0]
        return self.route(x).logits

    def probabilities(self, x: Tensor) -> Tensor:
        """Return probabilities (N, K) of normalised images (N, C, H, W)."""
        return self.forward(x).softmax(dim=1)

    def route(self, x: Tensor) -> Opened:
        """Return logits (N, K) and which residuals were computed (N, D); a residual is computed for the images that open it, alone."""
        opened = torch.zeros(len(x), self.network.depth, dtype=torch.bool, device=x.device)
        x = self.network.stem(x)
        for number, (gate, block) in enumerate(zip(self.gates, self._blocks, strict=True)):
            is_open = gate(pooled(x)) + self.shift > 0
            opened[:, number] = is_open
            n_open = int(is_open.sum())
            if n_open == len(x):
                x = self.network.blocks[number](x)
            elif n_open:
                index = is_open.nonzero().squeeze(1)
                x = block.joined(block.shortcut(x).index_add(0, index, block.residual(x.index_select(0, index))))
            elif not block.passes_on:
                x = block.joined(block.shortcut(x))
        return Opened(self.network.head(self.network.depth)(x), opened)

    def relaxed(self, x: Tensor, noise: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and the gates (N, D), 0 or 1 with the gradient of their sigmoid, under logistic noise (N, D)."""
        keeps = []
        x = self.network.stem(x)
        for number, (gate, block) in enumerate(zip(self.gates, self._blocks, strict=True)):
            soft = torch.sigmoid((gate(pooled(x)) + noise[:, number]) / temperature)
            keep = (soft > 0.5).float() + soft - soft.detach()
            residual = block.residual(x)
            x = block.joined(residual * keep.view(-1, *(1,) * (residual.ndim - 1)) + block.shortcut(x))
            keeps.append(keep)
        return self.network.head(self.network.depth)(x), torch.stack(keeps, dim=1)


@torch.no_grad()
def gated(network: DepthNetwork, *, hidden: int, generator: torch.Generator) -> GatedNetwork:
    """Return a network of its own with fresh gates, drawn from a CPU generator, that are open for most images."""
    made = GatedNetwork(network.truncated(network.depth).cpu(), hidden=hidden)
    for gate in made.gates:
        for layer in gate.modules():
            draw(layer, generator)
        assert isinstance(gate, Gate)
        gate.second.bias.fill_(OPEN_AT_FIRST)
    return made
